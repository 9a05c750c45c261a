from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from pyfsb import storage
from pyfsb.data.offset_tokenizing import hide_specials, make_tokenizer
from pyfsb.data.tokenizer_files import (
    bring_tokenizer,
    of_backend,
    open_tokenizer,
    read_pieces_of,
    read_specials,
)
from pyfsb.data.tokenizer_training import train_byte_bpe, train_unigram
from pyfsb.data.vocabulary import build_tokenizer, write_tokenizer
from pyfsb.errors import ConfigError, DataError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "今", "天", "abc", "##d"]
TEXTS = ["今天天气很好，我们去公园。", "PyTorch 2.3 学习"] * 5


def test_a_run_gives_the_tokenizer_of_its_model(tmp_path: Path) -> None:
    write_tokenizer(PIECES, tmp_path / "training/model", lowercase=True)
    assert bring_tokenizer(str(tmp_path / "training")) == tmp_path / "training/model"
    with pytest.raises(DataError, match="no such folder"):
        bring_tokenizer(str(tmp_path / "nothing"))


def test_a_tokenizer_comes_from_s3_without_the_weights(s3: str, tmp_path: Path) -> None:
    write_tokenizer(PIECES, tmp_path, lowercase=True)
    (tmp_path / "model.safetensors").write_bytes(b"0" * 99)
    for path in tmp_path.glob("*.*"):
        storage.upload(path, storage.join(s3, "training/model", path.name))
    folder = bring_tokenizer(storage.join(s3, "training"))
    assert read_pieces_of(folder) == PIECES
    assert not (folder / "model.safetensors").exists()
    with pytest.raises(DataError, match="no file of a tokenizer"):
        bring_tokenizer(storage.join(s3, "elsewhere"))


def test_a_hub_that_cannot_be_asked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="in no local cache and cannot be fetched"):
        bring_tokenizer("hf://nobody/nothing-at-all")
    with pytest.raises(ConfigError, match="only hf:// is fetched"):
        bring_tokenizer("modelscope://nobody/nothing")


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="tokenizer.json: not a tokenizer.json"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match="tokenizer_config.json is not JSON"):
        open_tokenizer(tmp_path)


def test_special_tokens_are_read_in_both_spellings(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "</s>"}, "pad_token": "<a>", "mask_token": None})
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    assert read_specials(tmp_path) == {"eos": "</s>", "pad": "<pad>"}


def test_an_id_without_a_piece_gets_a_name(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(PIECES, lowercase=True)
    parts = json.loads(tokenizer.to_str())
    parts["model"]["vocab"]["远"] = 11
    (tmp_path / "tokenizer.json").write_text(json.dumps(parts))
    pieces = read_pieces_of(tmp_path)
    assert pieces[9:] == ["[unused-id-9]", "[unused-id-10]", "远"]


def test_what_is_not_just_bert_keeps_its_own_rules(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(PIECES, lowercase=True)
    assert of_backend(tokenizer, source="t").backend is None
    tokenizer.add_tokens([AddedToken("新词")])
    parts = of_backend(tokenizer, source="t")
    assert parts.kind == "wordpiece"
    assert parts.backend
    document = make_tokenizer(parts, segmenter="rjieba").tokenize_batch(["今天新词"])[0]
    assert [parts.pieces[number] for number in document.ids] == ["今", "天", "新词"]


@pytest.mark.parametrize("train", [train_unigram, train_byte_bpe])
def test_hiding_special_tokens_changes_no_other_token(train: object, tmp_path: Path) -> None:
    tokenizer = train(iter(TEXTS), size=420, num_sentinels=3)  # type: ignore[operator]
    hidden = Tokenizer.from_str(hide_specials(tokenizer.to_str()))
    assert hidden.get_vocab_size() == tokenizer.get_vocab_size()
    for text in (*TEXTS, "龘 café 😀\n二行"):
        assert hidden.encode(text).ids == tokenizer.encode(text, add_special_tokens=False).ids
    for special in ("<extra_id_0>", "</s>", "<|endoftext|>"):
        known = tokenizer.token_to_id(special)
        if known is not None:
            assert known in tokenizer.encode(f"今天{special}").ids
            assert known not in hidden.encode(f"今天{special}").ids
