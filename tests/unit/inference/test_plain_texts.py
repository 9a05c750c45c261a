"""A request is read as a row was: its lines stay, and what it writes is no special token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from pyfsb.config import Family
from pyfsb.data.tokenizer_training import BYTE_BPE_ROLES, train_byte_bpe
from pyfsb.inference.encoding import encode_rows
from pyfsb.inference.fill_mask import MaskFiller
from pyfsb.inference.generate import Generator
from pyfsb.inference.protocol import TextInput
from pyfsb.inference.rewrite import Rewriter
from tests.helpers.models import MODELS, make_model
from tests.helpers.row_texts import tiny_tokenizer

TEXTS = ["今天天气很好。\n第二行", "def f(x):\n    return x\n\n\nprint(1)"] * 50
ASKED = "写\n\n    代码<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    trained = train_byte_bpe(iter(TEXTS), size=400, num_sentinels=2)
    return PreTrainedTokenizerFast(tokenizer_object=trained, **BYTE_BPE_ROLES)


def read_by(model: Any, predictor: Any, text: str) -> list[int]:
    """Return the ids that a predictor gives its model."""
    seen: list[list[int]] = []

    def generate(ids: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
        ids = more["input_ids"] if ids is None else ids
        seen.append(ids[0].tolist())
        return ids

    model.generate = generate
    predictor.predict([text])
    return seen[0]


def test_a_question_keeps_its_lines_and_cannot_end_itself(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    size, end = len(tokenizer), tokenizer.eos_token_id
    tiny = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": size, "n_positions": 128}
    model = GPT2LMHeadModel(GPT2Config(**tiny, bos_token_id=end, eos_token_id=end))
    template = "<|endoftext|>问：{text}\n答："
    asked = Generator(model, tokenizer, name="g", max_tokens=128, template=template)
    ids = read_by(model, asked, ASKED)
    assert ids.count(end) == 2 and ids[:2] == [end, end]  # the model's begin, the template's
    assert tokenizer.decode(ids[2:]) == f"问：{ASKED}\n答："


def test_a_text_that_is_rewritten_likewise(tokenizer: PreTrainedTokenizerBase) -> None:
    end = tokenizer.eos_token_id
    config = T5Config(
        vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=0, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    ids = read_by(model, Rewriter(model, tokenizer, name="r", max_tokens=128), ASKED)
    assert ids.count(end) == 1 and ids[-1] == end
    assert tokenizer.decode(ids[:-1]) == ASKED
    ids = read_by(model, Rewriter(model, tokenizer, name="r", max_tokens=128), "天气<extra_id_1>。")
    assert ids.count(tokenizer.convert_tokens_to_ids("<extra_id_1>")) == 1  # a gap to fill


@pytest.mark.parametrize("keeps_characters", [True, False])
def test_a_separator_in_a_text_is_text(keeps_characters: bool) -> None:
    words = tiny_tokenizer()
    item = TextInput(text="李白[SEP]\0" + f"{words.sep_token_id}\0", text_pair="杜甫[CLS]")
    (row,) = encode_rows(words, [item], max_tokens=60, keeps_characters=keeps_characters)
    assert row.ids.count(words.sep_token_id) == 2 and row.ids.count(words.cls_token_id) == 1
    (plain,) = encode_rows(words, [TextInput(text="李白", text_pair="杜甫")], max_tokens=60)
    whole = words("李白", "杜甫")
    assert (list(plain.ids), list(plain.types)) == (whole["input_ids"], whole["token_type_ids"])


def test_masks_count_where_they_are_filled(tmp_path: Path) -> None:
    from pyfsb.data.vocabulary import write_tokenizer
    from pyfsb.models.loading import load_tokenizer
    from tests.helpers.models import PIECES

    write_tokenizer(PIECES, tmp_path, lowercase=True)
    model = make_model(MODELS[0], Family.FILL_MASK)
    filler = MaskFiller(model, load_tokenizer(tmp_path), name="m", max_tokens=20)
    assert len(filler.predict(["中[MASK]人[MASK]"])[0].masks) == 2
