"""Pieces to text, and a generator that has no WordPiece: the layout of published GPT-2 folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

import pyfsb
from pyfsb.config import Family
from pyfsb.errors import CheckpointError
from pyfsb.inference.generate import Generator
from pyfsb.inference.pieces import decode_tokens, fill_text, is_wordpiece, join_pieces
from pyfsb.models.loading import load_tokenizer
from tests.helpers.models import MODELS, PIECES, write_model

END = "<|endoftext|>"
SENTENCES = ["北京是中国的首都。", "我们在中国人民大学。", "hello world, 我们很好！"]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = write_model(tmp_path_factory.mktemp("wordpiece"), MODELS[0], Family.FILL_MASK)
    return load_tokenizer(folder)


def write_byte_gpt2(folder: Path, *, num_missing: int = 0) -> Path:
    """Write a tiny GPT-2 with config.json, vocab.json and merges.txt, and no padding token."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=[END])
    tokenizer.save_model(str(folder))
    end = tokenizer.token_to_id(END)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size() - num_missing, n_layer=1, n_embd=32, n_head=2,
        n_positions=128, bos_token_id=end, eos_token_id=end, architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    assert config.pad_token_id is None
    torch.manual_seed(1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_pieces_become_text() -> None:
    pieces = ["hello", "##s", "world", "，", "中", "国", "3", ".", "5", "gpt"]
    assert join_pieces(pieces) == "hellos world，中国3.5 gpt"


@pytest.mark.parametrize(
    ("text", "pieces", "filled"),
    [
        ("[MASK]国", ["##中"], "中国"),
        ("中[MASK]人", ["##国"], "中国人"),
        ("中[MASK][MASK]民", ["国", "人"], "中国人民"),
        ("hello [MASK]!", ["##s"], "hellos!"),
        ("hello[MASK]", ["world"], "hello world"),
        ("[MASK]world", ["hello"], "hello world"),
        ("[MASK] world", ["hello"], "hello world"),
        ("## [MASK]", ["中"], "## 中"),
        ("[MASK]是[MASK]", ["中"], "中是[MASK]"),
    ],
)
def test_masks_are_filled_as_the_text_would_be_written(
    text: str, pieces: Sequence[str], filled: str, wordpiece: PreTrainedTokenizerBase
) -> None:
    assert fill_text(wordpiece, text, pieces) == filled


def test_wordpiece_is_told_from_byte_pieces(
    wordpiece: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    assert is_wordpiece(wordpiece)
    assert not is_wordpiece(load_tokenizer(write_byte_gpt2(tmp_path)))
    ids = [PIECES.index(piece) for piece in ("[CLS]", "中", "##s", "[SEP]")]
    assert decode_tokens(wordpiece, ids) == "中s"


def test_byte_pieces_become_the_text_they_came_from(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_byte_gpt2(tmp_path))
    for text in SENTENCES:
        ids = tokenizer(text)["input_ids"]
        assert decode_tokens(tokenizer, ids) == text
        assert decode_tokens(tokenizer, [*ids, tokenizer.eos_token_id]) == text
    assert decode_tokens(tokenizer, tokenizer("好龘")["input_ids"][:-1]) == "好"


def test_a_published_gpt2_continues_text(tmp_path: Path) -> None:
    folder = write_byte_gpt2(tmp_path)
    model = pyfsb.load(str(folder))
    assert isinstance(model, Generator)
    result = model.predict(["北京是中国"])[0]
    assert 0 < result.num_tokens <= 64
    names_of_bytes = {name for name in ByteLevel.alphabet() if not name.isascii()}
    assert result.text
    assert not names_of_bytes & {*result.text}


def test_a_tokenizer_that_does_not_fit_its_model_is_refused(tmp_path: Path) -> None:
    folder = write_byte_gpt2(tmp_path, num_missing=1)
    with pytest.raises(CheckpointError, match=r"the tokenizer has \d+ pieces, the model \d+ emb"):
        pyfsb.load(str(folder))
