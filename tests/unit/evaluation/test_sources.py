"""Rows as flat batches: what the model is taught is what the rows say, whatever the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, PreTrainedTokenizerBase

from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import Entity, Example
from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.evaluation import sources
from pyfsb.evaluation.sources import RowSource
from pyfsb.inference.encoding import encode_rows, model_inputs, pad_rows
from pyfsb.inference.protocol import TextInput
from pyfsb.inference.tag import bio_labels
from pyfsb.models.building import build_model, max_positions
from pyfsb.models.heads import Layout, build_loss
from pyfsb.models.loading import load_tokenizer
from pyfsb.models.ngrams import find_lexicon
from pyfsb.tokenizers.ngram_lexicon import NgramLimit
from tests.helpers.models import ENCODERS, PIECES, make_model

TEXTS = ["中国人民大学", "北京是我们的首都", "好", "hello world，我们很好！"]
PAIRS = ["我们是", "好", "很不好", "中国的首都"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder: Path = tmp_path_factory.mktemp("t")
    make_model(ENCODERS[0], Family.CLASSIFY, labels=("a", "b")).config.save_pretrained(folder)
    write_tokenizer(PIECES, folder, lowercase=True)
    return load_tokenizer(folder)


def _pairs() -> tuple[TaskSpec, list[Example]]:
    task = TaskSpec(family=Family.PAIR, text_pair="text_pair", labels=("b", "a"))
    rows = [
        Example(id=str(n), text=one, text_pair=two, label="ab"[n % 2])
        for n, (one, two) in enumerate(zip(TEXTS, PAIRS, strict=True))
    ]
    return task, rows


def _take(source: RowSource, *numbers: int) -> dict[str, list[int]]:
    ids = np.array(numbers, dtype=np.int64)
    batch = source.collate(ids, np.zeros_like(ids))
    assert (
        batch.num_tokens == batch.inputs["input_ids"].numel() == int(batch.inputs["lengths"].sum())
    )
    assert batch.num_targets == batch.inputs["target_ids"].numel()
    assert {tensor.dtype for tensor in batch.inputs.values()} == {torch.int64}
    return {name: tensor.tolist() for name, tensor in batch.inputs.items()}


def test_rows_lie_end_to_end_in_the_order_asked_for(tokenizer: PreTrainedTokenizerBase) -> None:
    task, rows = _pairs()
    source = RowSource(tokenizer, rows, task, max_tokens=32)
    alone = [_take(source, number) for number in range(4)]
    together = _take(source, 2, 0, 2, 3)
    for name, values in together.items():
        assert values == [value for number in (2, 0, 2, 3) for value in alone[number][name]]
    assert together["target_ids"] == [1, 1, 1, 0]
    inputs = [TextInput(text=row.text, text_pair=row.text_pair) for row in rows]
    for number, row in enumerate(encode_rows(tokenizer, inputs, max_tokens=32)):
        assert alone[number]["input_ids"] == list(row.ids)
        assert alone[number]["token_type_ids"] == list(row.types)
        assert source.lengths[number] == len(row.ids)


def test_chunks_change_nothing(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, rows = _pairs()
    whole = _take(RowSource(tokenizer, rows, task, max_tokens=32), 0, 1, 2, 3)
    monkeypatch.setattr(sources, "_CHUNK_ROWS", 3)
    assert _take(RowSource(tokenizer, rows, task, max_tokens=32), 0, 1, 2, 3) == whole


def test_tags_point_into_the_whole_batch(tokenizer: PreTrainedTokenizerBase) -> None:
    task = TaskSpec(family=Family.TAG, label="entities", labels=("地",))
    rows = [
        Example(id="0", text="北京好", entities=(Entity(start=0, end=2, type="地"),)),
        Example(id="1", text="好", entities=()),
        Example(id="2", text="很中国", entities=(Entity(start=1, end=3, type="地"),)),
    ]
    source = RowSource(tokenizer, rows, task, max_tokens=32)
    found = _take(source, 2, 1, 0)
    outside, begin, inside = range(len(bio_labels(task.labels)))
    assert found["target_ids"] == [outside, begin, inside, outside, begin, inside, outside]
    assert found["target_positions"] == [1, 2, 3, 6, 9, 10, 11]
    assert [found["input_ids"][place] for place in found["target_positions"]] == [
        PIECES.index(letter) for letter in "很中国好北京好"
    ]


@pytest.mark.parametrize("layout", ["flat", "packed", "buckets"])
@pytest.mark.parametrize("name", ENCODERS)
def test_the_loss_of_a_flat_batch_is_that_of_padded_rows(
    name: str, layout: Layout, tokenizer: PreTrainedTokenizerBase
) -> None:
    task, rows = _pairs()
    model = make_model(name, Family.PAIR, labels=task.labels)
    source = RowSource(tokenizer, rows, task, max_tokens=32)
    batch = source.collate(np.arange(4), np.zeros(4, dtype=np.int64))
    flat = build_loss(model, Family.PAIR, layout, micro_tokens=64)(**batch.inputs)
    inputs = [TextInput(text=row.text, text_pair=row.text_pair) for row in rows]
    encoded = encode_rows(tokenizer, inputs, max_tokens=32)
    logits_BL = model(**pad_rows(encoded, pad_id=0)).logits
    expected = torch.nn.functional.cross_entropy(
        logits_BL, torch.tensor([1, 0, 1, 0]), reduction="sum"
    )
    assert flat.item() == pytest.approx(expected.item(), rel=1e-5)


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.data())
def test_lists_are_taken_as_they_were_put(lists: list[list[int]], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8))
    kept = sources._Lists(np.array(items, dtype=np.int32) for items in lists)
    taken = kept.take(np.array(numbers, dtype=np.int64))
    assert taken.tolist() == [item for number in numbers for item in lists[number]]


@pytest.mark.parametrize("kind", ["zen1", "zen2"])
def test_n_grams_are_those_of_prediction(kind: str, tmp_path: Path) -> None:
    """Also where a text has more of them than a model of its length takes."""
    write_tokenizer(PIECES, tmp_path, lowercase=True)
    words = [text[i : i + n] for text in TEXTS[:2] for i in range(6) for n in range(2, 8 - i)]
    lines = [f"{word},{number + 2}" for number, word in enumerate(dict.fromkeys(words))]
    (tmp_path / "ngram.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shape = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "num_hidden_word_layers": 1, "vocab_size": len(PIECES),
        "word_size": len(lines) + 1, "max_position_embeddings": 256,
    }  # fmt: skip
    config = AutoConfig.for_model(kind, **shape)
    config.save_pretrained(tmp_path)
    torch.manual_seed(1)
    model = build_model(config, Family.PAIR, seed=1, labels=("a", "b")).eval()
    tokenizer, (task, rows) = load_tokenizer(tmp_path), _pairs()
    source = RowSource(
        tokenizer, rows, task, max_tokens=32, lexicon=find_lexicon(config, tokenizer),
        ngram_limit=NgramLimit(max_tokens=max_positions(config)),
    )  # fmt: skip
    batch = source.collate(np.arange(4), np.zeros(4, dtype=np.int64))
    inputs = [TextInput(text=row.text, text_pair=row.text_pair) for row in rows]
    padded = pad_rows(encode_rows(tokenizer, inputs, max_tokens=32), pad_id=0)
    asked = model_inputs(model, tokenizer, padded)
    counts = batch.inputs["ngram_counts"]
    assert counts.tolist() == (asked["input_ngram_ids"] > 0).sum(1).tolist()
    assert counts.max() < len(words) // 2
    with torch.no_grad():
        loss = build_loss(model, Family.PAIR, "buckets")(**batch.inputs)
        logits = model(**asked).logits
    expected = torch.nn.functional.cross_entropy(
        logits, batch.inputs["target_ids"], reduction="sum"
    )
    torch.testing.assert_close(loss, expected)
