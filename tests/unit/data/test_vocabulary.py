from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pyfsb.data.vocabulary import (
    SPECIAL_TOKENS,
    build_tokenizer,
    read_vocabulary,
    train_vocabulary,
    write_tokenizer,
)
from pyfsb.errors import DataError

TEXTS = ["我们在学习 PyTorch 和 pytorch 的 2023 年版本。", "机器学习，深度学习！learning"] * 3


def test_training_is_repeatable() -> None:
    texts = [f"word{number % 7} 测试{number} abc{number % 3}def" for number in range(500)]
    trained = [train_vocabulary(texts, size=120, lowercase=True) for _ in range(3)]
    assert trained[0] == trained[1] == trained[2]
    assert len(set(trained[0])) == len(trained[0]) <= 120


def test_special_tokens_come_first_and_common_characters_are_in() -> None:
    pieces = train_vocabulary(TEXTS, size=200, lowercase=True)
    assert tuple(pieces[:5]) == SPECIAL_TOKENS
    assert {"学", "习", "，", "pytorch"} <= set(pieces)
    assert not any(piece.startswith("##") and "\u4e00" <= piece[-1] <= "\u9fff" for piece in pieces)


def test_the_commonest_characters_win() -> None:
    pieces = train_vocabulary(["甲" * 9 + "乙" * 5 + "丙"], size=8, lowercase=True)
    assert pieces == [*SPECIAL_TOKENS, "乙", "甲"]


def test_case_is_kept_when_asked() -> None:
    assert "P" in train_vocabulary(TEXTS, size=200, lowercase=False)
    assert "P" not in train_vocabulary(TEXTS, size=200, lowercase=True)


def test_an_empty_corpus_is_an_error() -> None:
    with pytest.raises(DataError, match="holds no text to train a vocabulary on"):
        train_vocabulary(["", "  "], size=100, lowercase=True)


def test_a_vocabulary_file_is_checked() -> None:
    good = "\n".join([*SPECIAL_TOKENS, "一", "二"]) + "\n"
    assert read_vocabulary(good.replace("\n", "\r\n"), source="v")[-1] == "二"
    with pytest.raises(DataError, match=r"v: not a WordPiece vocabulary: \[MASK\] not in it"):
        read_vocabulary(good.replace("[MASK]", "x"), source="v")
    with pytest.raises(DataError, match="'一' stands on more than one line"):
        read_vocabulary(good + "一\n", source="v")


def test_transformers_loads_the_folder_and_agrees(tmp_path: Path) -> None:
    pieces = train_vocabulary(TEXTS, size=200, lowercase=True)
    write_tokenizer(pieces, tmp_path, lowercase=True)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ours = build_tokenizer(pieces, lowercase=True)
    for text in ("我们学习PyTorch，真的！", "Ａ é 囧 [MASK]"):
        assert loaded(text)["input_ids"] == ours.encode(text).ids
    pair = loaded("学习", "机器")
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert (loaded.mask_token, loaded.pad_token_id) == ("[MASK]", 0)
    assert type(loaded).__name__ == "BertTokenizer"
