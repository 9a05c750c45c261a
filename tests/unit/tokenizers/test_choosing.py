"""Every published layout loads, keeps texts whole, and is the same once saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizer

from pyfsb.errors import CheckpointError
from pyfsb.tokenizers import registration
from pyfsb.tokenizers.bart_sentencepiece import (
    BartSentencePieceTokenizer,
    DebertaSentencePieceTokenizer,
    LlamaSentencePieceTokenizer,
    T5SentencePieceTokenizer,
)
from pyfsb.tokenizers.choosing import load_tokenizer
from pyfsb.tokenizers.sentencepiece_model import read_sentencepiece
from tests.helpers.tokenizers import (
    TEXTS,
    write_byte_bpe,
    write_pegasus,
    write_sentencepiece,
    write_wordpiece,
)

SENTINELS = [f"<extra_id_{number}>" for number in range(9, -1, -1)]


def write_bart(folder: Path) -> Path:
    write_sentencepiece(folder, "bart", kind="bpe", user_defined_symbols=["<mask>"], pad_id=3)
    named = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def write_t5(folder: Path) -> Path:
    write_sentencepiece(
        folder, "mt5", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=SENTINELS
    )
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}'
    )
    return folder


def write_deberta(folder: Path) -> Path:
    return write_sentencepiece(
        folder, "deberta-v2", name="spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3,
        pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]",
    )  # fmt: skip


def write_llama(folder: Path) -> Path:
    return write_sentencepiece(
        folder, "llama", kind="bpe", name="tokenizer.model", byte_fallback=True, vocab_size=430,
        remove_extra_whitespaces=False,
    )  # fmt: skip


LOSSLESS: dict[str, Callable[[Path], Path]] = {
    "bart": write_bart,
    "t5": write_t5,
    "deberta sentencepiece": write_deberta,
    "llama": write_llama,
    "transformer": lambda folder: write_sentencepiece(folder, "transfo-xl-denoise"),
    "gpt2": write_byte_bpe,
}
LAYOUTS = {
    **LOSSLESS,
    "pegasus": write_pegasus,
    **{
        name: (lambda folder, name=name: write_wordpiece(folder, name))
        for name in ("bert", "deberta-v2", "bart", "megatron-bert", "megatron-t5", "zen1")
        if name != "bart"
    },
    "bart wordpiece": lambda folder: write_wordpiece(folder, "bart"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_folder_loads_and_is_the_same_once_saved(layout: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(LAYOUTS[layout](tmp_path / "published"))
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert len(again) == len(tokenizer)
    assert again.special_tokens_map == tokenizer.special_tokens_map
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert again(text)["input_ids"] == ids
        assert again(text, "你好")["input_ids"] == tokenizer(text, "你好")["input_ids"]
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token == tokenizer.eos_token or tokenizer.unk_token_id not in bare
        decoded = tokenizer.decode(bare)
        assert again.decode(bare) == decoded
        if layout in LOSSLESS:
            assert decoded == text
        else:  # spaces and capitals go, everything else comes back
            squeezed = "".join(text.split()).lower()
            assert "".join(decoded.split()) == squeezed
            assert tokenizer(decoded, add_special_tokens=False)["input_ids"] == bare


@pytest.mark.parametrize(
    "layout", [name for name in LAYOUTS if name not in {"megatron-t5", "zen1", "transformer"}]
)
def test_auto_tokenizer_finds_the_same(layout: str, tmp_path: Path) -> None:
    registration.register()
    tokenizer = load_tokenizer(LAYOUTS[layout](tmp_path / "published"))
    tokenizer.save_pretrained(tmp_path / "saved")
    config = (tmp_path / "published" / "config.json").read_text()
    (tmp_path / "saved" / "config.json").write_text(config)
    auto = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in TEXTS:
        assert auto(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("layout", ["deberta-v2", "bart wordpiece", "deberta sentencepiece"])
def test_auto_tokenizer_looks_at_the_files_of_a_published_folder(
    layout: str, tmp_path: Path
) -> None:
    folder = LAYOUTS[layout](tmp_path / "published")
    auto = AutoTokenizer.from_pretrained(folder)
    assert auto(TEXTS[0])["input_ids"] == load_tokenizer(folder)(TEXTS[0])["input_ids"]


def test_bart_puts_both_ends(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_bart(tmp_path / "published"))
    assert isinstance(tokenizer, BartSentencePieceTokenizer)
    model = read_sentencepiece(tmp_path / "published" / "spiece.model")
    bos, eos = model.find("<s>"), model.find("</s>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (bos, eos)
    ids = tokenizer("今天<mask>很好")["input_ids"]
    assert (ids[0], ids[-1]) == (bos, eos)
    assert model.find("<mask>") in ids
    pair = tokenizer("今天", "很好")["input_ids"]
    assert pair.count(eos) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "今天很好"


def test_t5_takes_the_sentinels_of_the_model(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_t5(tmp_path / "published"))
    assert isinstance(tokenizer, T5SentencePieceTokenizer)
    model = read_sentencepiece(tmp_path / "published" / "spiece.model")
    assert len(tokenizer) == len(model.pieces)
    ids = tokenizer("今天<extra_id_0>很好")["input_ids"]
    assert model.find("<extra_id_0>") in ids
    assert ids[-1] == model.find("</s>")
    assert set(tokenizer.extra_special_tokens) == set(SENTINELS)


def test_t5_without_sentinels_gets_a_hundred_counting_down(tmp_path: Path) -> None:
    folder = write_sentencepiece(tmp_path, "t5", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    tokenizer = load_tokenizer(folder)
    size = len(read_sentencepiece(folder / "spiece.model").pieces)
    assert len(tokenizer) == size + 100
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == size + 99
    assert tokenizer.convert_tokens_to_ids("<extra_id_99>") == size


def test_deberta_has_types_and_a_mask(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_deberta(tmp_path))
    assert isinstance(tokenizer, DebertaSentencePieceTokenizer)
    row = tokenizer("今天", "很好")
    assert row["token_type_ids"][0] == 0
    assert row["token_type_ids"][-1] == 1
    assert row["input_ids"][0] == tokenizer.cls_token_id == 1
    assert tokenizer.mask_token_id == len(tokenizer) - 1


def test_llama_puts_only_the_beginning(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_llama(tmp_path))
    assert isinstance(tokenizer, LlamaSentencePieceTokenizer)
    ids = tokenizer("今天\n\t鑫  字")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] != tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "今天\n\t鑫  字"


def test_deberta_with_a_vocab_txt_is_berts_whatever_it_says(tmp_path: Path) -> None:
    folder = write_wordpiece(tmp_path, "deberta-v2")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    tokenizer = load_tokenizer(folder)
    assert isinstance(tokenizer, BertTokenizer)
    assert tokenizer.tokenize("今天好") == ["今", "天", "好"]


def test_megatron_t5_has_ends_and_sentinels_behind_its_pieces(tmp_path: Path) -> None:
    folder = write_wordpiece(tmp_path, "megatron-t5")
    size = len((folder / "vocab.txt").read_text("utf-8").split("\n")) - 1
    tokenizer = load_tokenizer(folder)
    assert len(tokenizer) == size + 120
    assert tokenizer.bos_token_id == size
    assert tokenizer.eos_token_id == size + 1
    assert tokenizer.convert_tokens_to_ids("<extra_id_117>") == size + 119
    assert size + 2 in tokenizer("今天<extra_id_0>")["input_ids"]


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer; expected one of"):
        load_tokenizer(tmp_path)
    write_bart(tmp_path)
    data = (tmp_path / "spiece.model").read_bytes()
    (tmp_path / "spiece.model").write_bytes(data[:500])
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path)
    (tmp_path / "spiece.model").write_bytes(data.replace(b"</s>", b"</x>"))
    with pytest.raises(CheckpointError, match="no piece </s>"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_tokenizer(tmp_path)
