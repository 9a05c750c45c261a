"""Ids of the SentencePiece library, without the library."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pyfsb.errors import DataError
from pyfsb.tokenizers.sentencepiece_model import PieceKind, build_tokenizer, read_sentencepiece
from tests.helpers.tokenizers import TEXTS, write_sentencepiece

ODD = (
    "", " ", "  前后 空格  ", "换行\n第二\t行\n ", "，。！？；：“”‘’", "é á", "\u200b零宽", "hello  world 你好", "　全角",
)  # fmt: skip


def random_texts(count: int) -> list[str]:
    draw = random.Random(7)
    alphabet = "".join(TEXTS) + "字é \n"
    return [
        "".join(draw.choice(alphabet) for _ in range(draw.randint(1, 30))) for _ in range(count)
    ]


@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_gives_the_ids_of_the_library(
    kind: str, byte_fallback: bool, rule: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "character_coverage": 0.98,
        "normalization_rule_name": rule,
        "byte_fallback": byte_fallback,
    }
    if byte_fallback:
        options["vocab_size"] = 430
    folder = write_sentencepiece(tmp_path, "t5", kind=kind, **options)
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    model = read_sentencepiece(folder / "spiece.model")
    assert (model.kind, model.has_byte_fallback) == (kind, byte_fallback)
    assert len(model.pieces) == library.get_piece_size()
    assert model.pieces[model.unknown_id].kind is PieceKind.UNKNOWN
    tokenizer = build_tokenizer(model)
    for text in (*TEXTS, *ODD, *random_texts(300)):
        ours, theirs = tokenizer.encode(text).ids, library.encode(text)
        if kind == "unigram" and ours != theirs:  # two cuts of one score: 99|9 and 9|99
            assert sorted(ours) == sorted(theirs), text
            assert tokenizer.decode(ours) == tokenizer.decode(theirs), text
        else:
            assert ours == theirs, text
        if byte_fallback:
            assert tokenizer.decode(library.encode(text)) == library.decode(library.encode(text))


def test_text_comes_back(tmp_path: Path) -> None:
    folder = write_sentencepiece(tmp_path, "t5")
    tokenizer = build_tokenizer(read_sentencepiece(folder / "spiece.model"))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_own_symbols_and_controls_are_taken_whole(tmp_path: Path) -> None:
    folder = write_sentencepiece(
        tmp_path, "t5", user_defined_symbols=["<mask>"], control_symbols=["<sep>"]
    )
    tokenizer = build_tokenizer(read_sentencepiece(folder / "spiece.model"), specials=["<new>"])
    tokens = tokenizer.encode("今天<mask>很好<sep><new>").tokens
    assert [token for token in tokens if token.startswith("<")] == ["<mask>", "<sep>", "<new>"]
    assert tokenizer.token_to_id("<new>") == tokenizer.get_vocab_size() - 1


def test_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    for content in (b"", b"PK\x03\x04not a model", b"\x0a\xff\xff\xff\xff\x0f"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="spiece.model: "):
            read_sentencepiece(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_sentencepiece(tmp_path / "none")


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    path = write_sentencepiece(tmp_path, "t5") / "spiece.model"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a SentencePiece model"):
        read_sentencepiece(path)
