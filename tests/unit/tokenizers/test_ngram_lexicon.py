"""The n-gram lexicon: reading, writing, and finding n-grams in batches."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import ConfigError, DataError, UnknownNameError
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon, NgramLimit
from pyfsb.tokenizers.ngram_trie import MAX_TOKEN_ID, Trie

UNKNOWN_ID = 1


def encode(texts: list[str]) -> list[list[int]]:
    """A letter is a token: a = 2, b = 3 …, ? is unknown."""
    return [[1 if c == "?" else ord(c) - ord("a") + 2 for c in text.lower()] for text in texts]


def make(*lines: str, kind: str = "zen2") -> NgramLexicon:
    return NgramLexicon(lines, kind=kind, encode=encode, unknown_id=UNKNOWN_ID)


def find(lexicon: NgramLexicon, *texts: str, **options: Any) -> list[list[tuple[int, int, int]]]:
    """Return (id, start in its document, length) of the n-grams of each text."""
    runs = encode(list(texts))
    lengths = np.array([len(run) for run in runs])
    ids = np.array([i for run in runs for i in run], dtype=np.int64)
    found = lexicon.find(ids, lengths, **options)
    assert found.counts_B.sum() == found.ids_G.size
    firsts = np.repeat(np.cumsum(lengths) - lengths, found.counts_B)
    cells = list(zip(found.ids_G, found.starts_G - firsts, found.lengths_G, strict=True))
    ends = np.cumsum(found.counts_B)
    return [
        [tuple(map(int, cell)) for cell in cells[end - count : end]]
        for end, count in zip(ends, found.counts_B, strict=True)
    ]


def test_ids_are_line_numbers_and_the_order_is_that_of_the_kind() -> None:
    lines = ("bcd,5", "ab,9", "bc,1")
    assert find(make(*lines), "abcd", "", "xbc") == [
        [(1, 1, 3), (2, 0, 2), (3, 1, 2)],
        [],
        [(3, 1, 2)],
    ]
    zen1 = find(make(*lines, kind="zen1"), "abcd", "xbc")
    assert zen1 == [[(2, 0, 2), (3, 1, 2), (1, 1, 3)], [(3, 1, 2)]]


def test_no_ngram_crosses_a_document() -> None:
    lexicon = make("ab,1", "abc,1")
    assert find(lexicon, "a", "bab", "c") == [[], [(1, 1, 2)], []]


def test_zen2_skips_wrong_lines_and_unknown_tokens_zen1_does_not() -> None:
    lexicon = make("ab,3", "no frequency", "a,b,4", " cd,7 ", "??,2", "", "c?,1")
    assert find(lexicon, "abcd??c?") == [[(1, 0, 2), (4, 2, 2)]]
    assert lexicon.size == 8
    assert lexicon.num_matchable == 2
    assert find(make("??,2", kind="zen1"), "a???") == [[(1, 1, 2), (1, 2, 2)]]
    with pytest.raises(DataError, match="line 2: 'no frequency'; expected `ngram,frequency`"):
        make("ab,3", "no frequency", kind="zen1")
    for kind in ("zen1", "zen2"):
        with pytest.raises(DataError, match="line 1: frequency 'many' is no number"):
            make("ab,many", kind=kind)


def test_of_equal_ngrams_the_last_line_counts() -> None:
    lexicon = make("ab,3", "AB,8")
    assert find(lexicon, "ab") == [[(2, 0, 2)]]
    assert lexicon.match(encode(["ab"])[0]).frequencies_G.tolist() == [8]


def test_lengths_from_2_to_7_match() -> None:
    lexicon = make("a,1", "ab,1", "abcdefg,1", "abcdefgh,1")
    assert find(lexicon, "abcdefgh") == [[(2, 0, 2), (3, 0, 7)]]
    assert find(make(), "abc") == [[]]


def test_the_limit_grows_with_the_text() -> None:
    limit = NgramLimit(max_tokens=10, max_ngrams=5)
    assert limit.of(np.array([0, 1, 2, 3, 10])).tolist() == [0, 1, 1, 2, 5]
    lines = ("bc,1", "ab,1", "cd,1", "abc,1")
    assert find(make(*lines), "abcd", limit=limit) == [[(1, 1, 2), (2, 0, 2)]]
    assert find(make(*lines, kind="zen1"), "abcd", limit=limit) == [[(2, 0, 2), (1, 1, 2)]]


def test_zen1_thins_out_by_its_key_alone() -> None:
    lexicon = make(*(f"{a}{b},1" for a in "ab" for b in "ab"), kind="zen1")
    text, limit = "abbabaabbaab", NgramLimit(max_tokens=12, max_ngrams=4)
    texts = [text] * 50
    drawn = find(lexicon, *texts, limit=limit, keys_B=np.arange(50))
    assert len({tuple(cells) for cells in drawn}) > 20
    assert {len(cells) for cells in drawn} == {4}
    starts = [start for cells in drawn for _, start, _ in cells]
    assert min(np.bincount(starts, minlength=11)) > 0, "every n-gram has a chance"
    alone = find(lexicon, "ba", text, limit=limit, keys_B=np.array([77, 31]))
    assert alone[1] == drawn[31], "neither its place in the batch nor its neighbours matter"


@given(
    entries=st.lists(st.text("abc", min_size=1, max_size=8), max_size=30, unique=True),
    texts=st.lists(st.text("abcd", max_size=14), min_size=1, max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_finding_is_looking_at_every_run(entries: list[str], texts: list[str]) -> None:
    wanted = [
        sorted(
            (entries.index(text[i : i + n]) + 1, i, n)
            for n in range(2, 8)
            for i in range(len(text) - n + 1)
            if text[i : i + n] in entries
        )
        for text in texts
    ]
    assert find(make(*(f"{entry},1" for entry in entries)), *texts) == wanted


def test_crowded_tables_stay_exact() -> None:
    generator = np.random.default_rng(0)
    runs = np.unique(generator.integers(0, 90, (4000, 3)), axis=0)
    trie = Trie(runs.tolist(), list(range(1, len(runs) + 1)))
    ids = np.concatenate([runs.ravel(), generator.integers(0, 90, 20_000)])
    room = np.full(ids.size, 3)
    room[-2:] = [2, 1]
    [(length, starts, numbers)] = list(trie.walk(ids, room))
    assert length == 3
    known = {tuple(run): number for number, run in enumerate(runs.tolist(), start=1)}
    wanted = {
        start: known[run]
        for start in range(ids.size - 2)
        if (run := tuple(ids[start : start + 3].tolist())) in known
    }
    assert dict(zip(starts.tolist(), numbers.tolist(), strict=True)) == wanted


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    lexicon = make("ab,3", "wrong line", "\u2028cd,4", "龘,5")
    path = lexicon.write(tmp_path / "new")
    assert path.read_text(encoding="utf-8") == "ab,3\nwrong line\n\u2028cd,4\n龘,5\n"
    for place in (path, path.parent):
        again = NgramLexicon.read(
            place, kind="zen2", encode=lambda texts: [[2]] * len(texts), unknown_id=UNKNOWN_ID
        )
        assert again.lines == lexicon.lines
    loaded = pickle.loads(pickle.dumps(lexicon))
    assert find(loaded, "abab") == find(lexicon, "abab") == [[(1, 0, 2), (1, 2, 2)]]


def test_bad_lexicons_say_what_is_wrong(tmp_path: Path) -> None:
    def read() -> NgramLexicon:
        return NgramLexicon.read(tmp_path, kind="zen1", encode=encode)

    with pytest.raises(DataError, match=r"ngram\.txt: no n-gram lexicon; ZEN needs"):
        read()
    (tmp_path / "ngram.txt").write_bytes("天,1".encode("gbk"))
    with pytest.raises(DataError, match=r"ngram\.txt is not UTF-8"):
        read()
    (tmp_path / "ngram.txt").write_text("ab,1\nab\n")
    with pytest.raises(DataError, match=r"ngram\.txt: line 2: 'ab'; expected"):
        read()
    with pytest.raises(
        UnknownNameError, match="unknown kind of n-gram lexicon 'zen3'; did you mean"
    ):
        make(kind="zen3")
    with pytest.raises(ConfigError, match="2 lines and needs word_size = 3 .* zen has 2"):
        make("ab,1", "cd,1").check_fits(2, source="zen")
    make("ab,1", "cd,1").check_fits(3)
    for ids in ([-1, 2], [MAX_TOKEN_ID + 1]):
        with pytest.raises(DataError, match="token ids from 0"):
            make("ab,1").match(ids)
    with pytest.raises(DataError, match="token ids from 0"):
        NgramLexicon(["ab,1"], kind="zen1", encode=lambda _: [[1, 1 << 21]], unknown_id=None)
    with pytest.raises(DataError, match="1 n-grams became 0 runs"):
        NgramLexicon(["ab,1"], kind="zen1", encode=lambda _: [], unknown_id=None)


@pytest.mark.parametrize("text", ["", "no frequency\n"])
def test_a_lexicon_without_ngrams_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "ngram.txt").write_text(text)
    with pytest.raises(DataError, match=rf"ngram.txt has {text.count(chr(10))} lines; expected"):
        NgramLexicon.read(tmp_path, kind="zen2", encode=encode)
