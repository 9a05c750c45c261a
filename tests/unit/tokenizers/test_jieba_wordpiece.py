"""The pure split against the original's, case by case."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyfsb.errors import ConfigError, DataError
from pyfsb.tokenizers.jieba_wordpiece import (
    SPECIAL_TOKENS,
    JiebaWordPiece,
    join_pieces,
    load_cutter,
    read_vocabulary,
    write_tokenizer,
)
from tests.helpers.reference import ReferenceCase, reference_cases

VOCABULARY = read_vocabulary(
    "[PAD]\n[unused1]\n[unused2]\n[unused3]\n[UNK]\n[SEP]\n[CLS]\n北\n北京\n大\n学\ncaf\ne\n##x\né\n\u200b\n𠮷\n。\n“\n",
    source="here",
)


def make(*, lowercase: bool = True) -> JiebaWordPiece:
    return JiebaWordPiece(VOCABULARY, lowercase=lowercase)


@pytest.mark.parametrize("segmenter", ["jieba", "rjieba"])
@reference_cases("tokenizer_pegasus")
def test_splits_and_joins_as_the_original(case: ReferenceCase, segmenter: str) -> None:
    vocabulary = read_vocabulary((case.folder / "vocab.txt").read_text("utf-8"), source="case")
    options = dict(case.config["options"])
    words = JiebaWordPiece(
        vocabulary,
        lowercase=options.pop("do_lower_case", True),
        strips_accents=options.pop("strip_accents", None),
        splits_hanzi=options.pop("tokenize_chinese_chars", True),
        cut=load_cutter(segmenter),
    )
    assert not options
    assert len(vocabulary) == case.config["vocab_size"]
    reference, cut = load_cutter("jieba"), load_cutter(segmenter)
    rows = [row for row in case.lines() if "text" in row]
    # Where two cuts have one score the two may differ; see load_cutter.
    alike = [row for row in rows if list(cut(row["text"])) == list(reference(row["text"]))]
    assert len(alike) >= 0.95 * len(rows)
    for row in alike:
        pieces = words.tokenize(row["text"], specials=SPECIAL_TOKENS)
        assert pieces == row["tokens"], row
        ids = words.encode(row["text"], specials=SPECIAL_TOKENS)
        assert [*ids, vocabulary["</s>"]] == row["ids"], row
        assert join_pieces([*pieces, "</s>"]) == row["decoded"].strip(), row


def test_a_word_in_the_vocabulary_stays_whole_and_others_fall() -> None:
    pieces = list(make().split(" 北京 北京大学。"))
    assert [(piece.text, piece.start, piece.is_word_start) for piece in pieces] == [
        ("北京", 1, True),
        ("北", 4, True),
        ("<unk>", 5, False),
        ("大", 6, False),
        ("学", 7, False),
        ("。", 8, True),
    ]


def test_letters_outside_the_pattern_split_words_and_accents_are_kept() -> None:
    assert make().tokenize("Café") == ["caf", "é"]
    assert make(lowercase=False).tokenize("Café") == ["<unk>", "é"]


def test_accents_and_hanzi_by_option() -> None:
    plain = {**VOCABULARY, "e": 90, "##大学": 91, "学": 92}
    plain.pop("é")
    assert JiebaWordPiece(plain).tokenize("é") == ["e"]
    assert JiebaWordPiece(plain, strips_accents=False).tokenize("é") == ["<unk>"]
    assert JiebaWordPiece(plain, lowercase=False, strips_accents=True).tokenize("é") == ["e"]
    assert JiebaWordPiece(plain, splits_hanzi=False).tokenize("北京大学") == ["北京", "##大学"]


def test_zero_width_and_rare_characters_survive() -> None:
    assert make().tokenize("“\u200b𠮷\u200c") == ["“", "\u200b", "𠮷"]


def test_special_tokens_are_text_unless_asked_for() -> None:
    assert make().tokenize("北</s> 北", specials=SPECIAL_TOKENS) == ["北", "</s>", "北"]
    assert "</s>" not in make().tokenize("北</s> 北")


def test_places_survive_characters_that_grow_when_lowered() -> None:
    pieces = list(make().split("İ北 <unk> 北", specials=SPECIAL_TOKENS))
    assert [(piece.text, piece.start) for piece in pieces if piece.text == "北"] == [
        ("北", 1),
        ("北", 9),
    ]


def test_long_words_are_unknown() -> None:
    assert make().tokenize("ex") == ["e", "##x"]
    assert make().tokenize("e" + "x" * 99) == ["e", *["##x"] * 99]
    assert make().tokenize("e" + "x" * 100) == ["<unk>"]


def test_decimal_points_and_english_endings_close_up() -> None:
    assert join_pieces(["it", "'", "s", "3", ".", "14"]) == "it's 3.14"


def test_a_vocabulary_without_a_special_line_is_refused() -> None:
    with pytest.raises(DataError, match=r"here: no line \[unused2\]"):
        read_vocabulary("[PAD]\n[unused1]\n[unused3]\n[UNK]\n", source="here")
    with pytest.raises(DataError, match="no <unk>"):
        JiebaWordPiece({"北": 0})


def test_an_unknown_segmenter_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected jieba or rjieba"):
        load_cutter("pkuseg")


def test_a_written_vocabulary_reads_the_same(tmp_path: Path) -> None:
    write_tokenizer(VOCABULARY, tmp_path, lowercase=True)
    again = read_vocabulary((tmp_path / "vocab.txt").read_text("utf-8"), source="file")
    assert again == VOCABULARY
