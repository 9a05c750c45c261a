from __future__ import annotations

import numpy as np
import pytest
import torch

from pyfsb.config import Family
from pyfsb.errors import DataError
from pyfsb.models.building import build_config, build_model
from pyfsb.models.heads import build_loss
from pyfsb.objectives.rewriting import RewriteSample, Rewriting
from pyfsb.objectives.row_objective import SampleKey, Tokenized
from pyfsb.registry import find_entry
from pyfsb.registry.sizes import tiny_config
from tests.helpers.models import PIECES


def tokenize(text: str, template: str = "{text}", /) -> Tokenized:
    whole = template.replace("{text}", text)
    ids = np.array([10 + ord(letter) - ord("a") for letter in whole], dtype=np.int32)
    return Tokenized(ids_T=ids, offsets_T2=np.empty((0, 2), dtype=np.int32))


def make(**changes: object) -> Rewriting:
    values = {
        "begins": (2,),
        "ends": (3,),
        "decoder_start": 0,
        "eos": 3,
        "max_tokens": 8,
        "max_target_tokens": 6,
    }
    return Rewriting(**{**values, **changes})  # type: ignore[arg-type]


def collate(objective: Rewriting, *pairs: tuple[str, str]) -> dict[str, np.ndarray]:
    encoded = [objective.encode(RewriteSample(text=a, target=b), tokenize) for a, b in pairs]
    keys = [SampleKey(seed=1, sample_id=n, data_pass=0) for n in range(len(pairs))]
    batch = objective.collate(encoded, keys)
    assert batch.num_targets == batch.arrays["target_ids"].size
    assert batch.num_tokens == sum(objective.count_tokens(row) for row in encoded)
    return dict(batch.arrays)


def test_each_target_token_is_predicted_from_those_before_it_of_its_own_row() -> None:
    arrays = collate(make(), ("ab", "xyz"), ("c", "p"))
    x, y, z, p = (10 + ord(letter) - ord("a") for letter in "xyzp")
    assert arrays["input_ids"].tolist() == [2, 10, 11, 3, 2, 12, 3]
    assert arrays["lengths"].tolist() == [4, 3]
    assert arrays["target_ids"].tolist() == [x, y, z, 3, p, 3]
    assert arrays["decoder_ids"].tolist() == [0, x, y, z, 0, p]
    assert arrays["decoder_lengths"].tolist() == [4, 2]
    assert arrays["target_positions"].tolist() == list(range(6))


def test_long_texts_lose_their_end_and_keep_the_special_tokens() -> None:
    row = make().encode(RewriteSample(text="abcdefghij", target="abcdefgh"), tokenize)
    assert row.is_truncated
    assert row.ids_T.tolist() == [2, *range(10, 16), 3]
    assert row.target_T.tolist() == [*range(10, 16)]  # cut, so it does not end here


def test_the_encoder_reads_the_prompt() -> None:
    row = make(template="s{text}").encode(RewriteSample(text="a", target="b"), tokenize)
    assert row.ids_T.tolist() == [2, 10 + ord("s") - ord("a"), 10, 3]
    assert not row.is_truncated


def test_a_long_text_leaves_the_whole_prompt() -> None:
    row = make(template="s{text}z").encode(RewriteSample(text="abcdefgh", target="b"), tokenize)
    s, z = (10 + ord(letter) - ord("a") for letter in "sz")
    assert row.ids_T.tolist() == [2, s, 10, 11, 12, 13, z, 3]


def test_an_empty_text_is_named() -> None:
    with pytest.raises(DataError, match="target has no token"):
        make().encode(RewriteSample(text="a", target=""), tokenize)


@pytest.mark.parametrize("name", ["Randeng-BART-139M", "Randeng-T5-77M", "Randeng-MegatronT5-770M"])
def test_the_loss_is_that_of_the_model_itself(name: str) -> None:
    entry = find_entry(name)
    overrides = {**tiny_config(entry), "vocab_size": len(PIECES)}
    config = build_config(entry, overrides, vocabulary=())
    model = build_model(config, Family.REWRITE, seed=1).eval()
    arrays = collate(make(), ("abcd", "xyz"))
    tensors = {key: torch.from_numpy(value) % len(PIECES) for key, value in arrays.items()}
    with torch.no_grad():
        found = build_loss(model, Family.REWRITE, "padded").eval()(**tensors)
        logits = model(
            input_ids=tensors["input_ids"][None], decoder_input_ids=tensors["decoder_ids"][None]
        ).logits[0]
    expected = torch.nn.functional.cross_entropy(logits, tensors["target_ids"], reduction="sum")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
