"""ZEN's tokenizer: WordPiece with the lexicon beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer

from pyfsb.errors import ConfigError, DataError
from pyfsb.models.architectures import find_architecture
from pyfsb.tokenizers.ngram_tokenizer import ZenTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "北", "京", "大", "学", "ai", "，", "##s"]
LINES = ["北京,22", "broken", "大学,19", "北京大学,3", "AI,4", "龘大,5"]
TEXT = "北京大学，AI 北[MASK]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As published: vocab.txt and ngram.txt beside a config."""
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    (tmp_path / "ngram.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "zen2"}))
    return tmp_path


def test_published_folders_load_with_their_lexicon(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, ZenTokenizer)
    ids = tokenizer(TEXT)["input_ids"]
    assert ids == BertTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    found = tokenizer.lexicon("zen2").match(ids)
    assert found.ids_G.tolist() == [1, 3, 4]
    assert found.starts_G.tolist() == [1, 3, 1]
    assert tokenizer.lexicon("zen2") is tokenizer.lexicon("zen2")


def test_saved_and_loaded_keeps_the_lexicon(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/ngram.txt").read_bytes() == (folder / "ngram.txt").read_bytes()
    (tmp_path / "saved/config.json").write_text((folder / "config.json").read_text())
    for again in (
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        ZenTokenizer.from_pretrained(tmp_path / "saved"),
    ):
        assert isinstance(again, ZenTokenizer)
        assert again(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
        assert again.lexicon("zen2").lines == tuple(LINES)
        again.save_pretrained(tmp_path / "twice")
        assert (tmp_path / "twice/ngram.txt").read_bytes() == (folder / "ngram.txt").read_bytes()


def test_without_a_lexicon_it_tokenises_but_finds_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "ngram.txt").unlink()
    tokenizer = ZenTokenizer.from_pretrained(folder)
    assert tokenizer(TEXT)["input_ids"]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved/ngram.txt").exists()
    with pytest.raises(DataError, match=r"no n-gram lexicon; zen1 needs ngram\.txt"):
        tokenizer.lexicon("zen1")


def test_models_take_ngrams_of_padded_rows(folder: Path) -> None:
    found = find_architecture("zen2")
    assert found
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 12}
    model = found.base(found.config(**sizes, word_size=7, num_hidden_layers=1))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(["大学", TEXT], padding=True, return_tensors="pt")
    ngrams = model.match_ngrams(tokenizer, rows["input_ids"], rows["attention_mask"])
    assert ngrams["input_ngram_ids"].tolist() == [[3, 0, 0], [1, 3, 4]]
    covered = torch.nonzero(ngrams["ngram_position_matrix"][1].sum(-1)).flatten()
    assert covered.tolist() == [1, 2, 3, 4]
    assert model(**rows, **ngrams)[0].isfinite().all()
    small = found.base(found.config(**sizes, word_size=6, num_hidden_layers=1))
    with pytest.raises(ConfigError, match="6 lines and needs word_size = 7"):
        small.match_ngrams(tokenizer, rows["input_ids"], rows["attention_mask"])
    plain = BertTokenizer.from_pretrained(folder)
    with pytest.raises(DataError, match="zen2 needs a ZenTokenizer"):
        model.match_ngrams(plain, rows["input_ids"], rows["attention_mask"])
