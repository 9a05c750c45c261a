# SPDX-License-Identifier: Apache-2.0
"""Normalised Chinese text to BERT ids and word bits, exactly as `tokenizers` does it, but faster.

BERT's pre-tokeniser isolates every hanzi and punctuation mark, so for them a table from code point
to id is the whole tokeniser. What is left (Latin, digits, kana, symbols) goes through
`tokenizers` in runs, which are cached. One difference is meant: a literal `[SEP]` or `[MASK]` in a
document is text like any other and never becomes the special token. Called by `prepare` in its
worker processes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pyfsb.data.segmenting import Cutter, word_starts
from pyfsb.data.sentences import sentence_starts
from pyfsb.data.vocabulary import build_tokenizer

CJK_RANGES: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""What BERT isolates as hanzi. Source: `BertNormalizer` of tokenizers 0.23 (its fourth-to-last
block differs from Google's script by starting at U+2B920; a test compares code point by code
point)."""
_NUM_CODE_POINTS = 0x110000
_HARD, _SINGLE, _SPACE = 0, 1, 2
_MAX_CACHED_RUNS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedDocument:
    """The tokens of one document; arrays of one length."""

    ids: NDArray[np.int32]
    """Token ids, without special tokens."""
    word_starts: NDArray[np.bool_]
    """True where a whole word begins; `##` pieces never do."""
    sentence_starts: NDArray[np.bool_]
    """True at the first token of a sentence."""
    positions: NDArray[np.int64]
    """The character of the text where each token begins, ascending."""


class CorpusTokenizer(Protocol):
    """Turns documents into ids, word bits and sentence bits, whatever the kind of tokenizer."""

    def tokenize_batch(self, texts: Sequence[str]) -> list[TokenizedDocument]:
        """Return the tokens of normalised documents."""


class DocumentTokenizer:
    """The tokenizer of WordPiece vocabularies."""

    def __init__(self, pieces: Sequence[str], *, lowercase: bool, cut: Cutter) -> None:
        """Build the tables of a vocabulary (about 0.1 s).

        Args:
            pieces: The vocabulary, ids in order.
            lowercase: As in `VocabularySpec`.
            cut: A word segmenter from `load_cutter`.
        """
        self._cut = cut
        self._tokenizer = build_tokenizer(pieces, lowercase=lowercase)
        self._is_continuation = np.array([piece.startswith("##") for piece in pieces])
        self._kinds, self._ids = self._build_tables(pieces)
        self._runs: dict[str, tuple[list[int], list[int]]] = {}

    def tokenize(self, text: str) -> TokenizedDocument:
        """Return the tokens of one normalised document."""
        return self.tokenize_batch([text])[0]

    def tokenize_batch(self, texts: Sequence[str]) -> list[TokenizedDocument]:
        """Return the tokens of normalised documents, computed together.

        Joined by newlines they are one text: no token, run or word crosses a newline, and short
        documents then cost no more than long ones.
        """
        joined = "\n".join(texts)
        points = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
        kinds = self._kinds[points]
        singles = np.flatnonzero(kinds == _SINGLE)
        ids, positions = self._ids[points[singles]], singles
        hard_ids, hard_positions = self._tokenize_runs(joined, kinds == _HARD)
        if hard_ids:
            positions = np.concatenate([singles, np.asarray(hard_positions, dtype=np.int64)])
            ids = np.concatenate([ids, np.asarray(hard_ids, dtype=np.int32)])
            order = np.argsort(positions, kind="stable")
            ids, positions = ids[order], positions[order]
        firsts = np.cumsum([0, *(len(text) + 1 for text in texts)])
        bounds = np.searchsorted(positions, firsts)
        starts = [
            first + place
            for first, text in zip(firsts.tolist(), texts, strict=False)
            for place in sentence_starts(text)
        ]
        is_first = mark(bounds[:-1], ids.size)
        words = self._word_bits(joined, points, ids, positions) | is_first
        sentences = mark(np.searchsorted(positions, starts), ids.size) | is_first
        return [
            TokenizedDocument(
                ids=ids[start:stop],
                word_starts=words[start:stop],
                sentence_starts=sentences[start:stop],
                positions=positions[start:stop] - first,
            )
            for first, (start, stop) in zip(
                firsts.tolist(), pairwise(bounds.tolist()), strict=False
            )
        ]

    def _tokenize_runs(self, text: str, is_hard: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        """Tokenise the runs of other characters; returns ids and character positions."""
        ids: list[int] = []
        positions: list[int] = []
        edges = np.flatnonzero(np.diff(is_hard, prepend=False, append=False))
        for start, stop in edges.reshape(-1, 2).tolist():
            run_ids, offsets = self._tokenize_run(text[start:stop])
            ids += run_ids
            positions += [start + offset for offset in offsets]
        return ids, positions

    def _tokenize_run(self, run: str) -> tuple[list[int], list[int]]:
        cached = self._runs.get(run)
        if cached is None:
            encoding = self._tokenizer.encode(run, add_special_tokens=False)
            cached = (encoding.ids, [start for start, _ in encoding.offsets])
            if len(self._runs) < _MAX_CACHED_RUNS:
                self._runs[run] = cached
        return cached

    def _word_bits(
        self,
        text: str,
        points: NDArray[np.uint32],
        ids: NDArray[np.int32],
        positions: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """A token begins a word if jieba's word does there, or if it is in no run at all."""
        is_start: NDArray[np.bool_] = word_starts(text, self._cut)[positions]
        is_start |= is_outside_runs(points[positions])
        is_start &= ~self._is_continuation[ids]
        return is_start

    def _build_tables(self, pieces: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return each code point's kind and, where it is a token of its own, its id."""
        kinds = np.full(_NUM_CODE_POINTS, _HARD, dtype=np.uint8)
        ids = np.zeros(_NUM_CODE_POINTS, dtype=np.int32)
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        unknown = vocabulary["[UNK]"]
        for low, high in CJK_RANGES:
            kinds[low : high + 1] = _SINGLE
            ids[low : high + 1] = unknown
        kinds[[ord(" "), ord("\n")]] = _SPACE
        self._add_singles(kinds, ids, [ord(piece) for piece in pieces if len(piece) == 1])
        punctuation = [p for p in range(0x3040) if _is_punctuation(p)]
        punctuation += [p for p in range(0xFE10, 0xFFF0) if _is_punctuation(p)]
        self._add_singles(kinds, ids, punctuation)
        # Hanzi whose canonical decomposition is another hanzi: the normaliser changes them.
        for low, high in ((0xF900, 0xFAFF), (0x2F800, 0x2FA1F)):
            kinds[low : high + 1] = _HARD
        return kinds, ids

    def _add_singles(
        self, kinds: NDArray[np.uint8], ids: NDArray[np.int32], points: list[int]
    ) -> None:
        """Enter the code points that stay one token of their own between letters."""
        alone = self._tokenizer.encode_batch_fast(
            [chr(point) for point in points], add_special_tokens=False
        )
        between = self._tokenizer.encode_batch_fast(
            [f"a{chr(point)}a" for point in points], add_special_tokens=False
        )
        letter = self._tokenizer.encode("a", add_special_tokens=False).ids
        for point, single, surrounded in zip(points, alone, between, strict=True):
            if len(single.ids) == 1 and surrounded.ids == [*letter, *single.ids, *letter]:
                kinds[point], ids[point] = _SINGLE, single.ids[0]


def cut_samples(document: TokenizedDocument, max_tokens: int) -> list[int]:
    """Return where the samples of a document begin, the first at 0.

    Whole sentences are gathered until the next would not fit; a sentence longer than a sample is
    cut at a word, or anywhere when the word itself is longer.

    Args:
        document: A tokenised document.
        max_tokens: Tokens of a sample at most, special tokens not counted.
    """
    num_tokens = document.ids.size
    starts: list[int] = [0] if num_tokens else []
    sentences = np.flatnonzero(document.sentence_starts)
    words = np.flatnonzero(document.word_starts)
    while starts and num_tokens - starts[-1] > max_tokens:
        limit = starts[-1] + max_tokens
        for candidates in (sentences, words):
            index = int(np.searchsorted(candidates, limit, side="right")) - 1
            if index >= 0 and candidates[index] > starts[-1]:
                limit = int(candidates[index])
                break
        starts.append(limit)
    return starts


def is_outside_runs(points: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Say of code points whether they are part of no word: neither hanzi, letter nor digit."""
    outside: NDArray[np.bool_] = ~_RUN_TABLE[points]
    return outside


def mark(places: NDArray[np.integer] | Sequence[int], size: int) -> NDArray[np.bool_]:
    """Return booleans that are True at the given places below size."""
    marks = np.zeros(size + 1, dtype=np.bool_)
    marks[places] = True
    return marks[:size]


def _is_punctuation(point: int) -> bool:
    character = chr(point)
    is_ascii_sign = point < 0x80 and not character.isalnum() and point > 0x20 and point != 0x7F
    return is_ascii_sign or unicodedata.category(character).startswith("P")


def _run_table() -> NDArray[np.bool_]:
    table = np.zeros(_NUM_CODE_POINTS, dtype=np.bool_)
    table[0x4E00 : 0x9FD5 + 1] = True
    for low, high in (("a", "z"), ("A", "Z"), ("0", "9")):
        table[ord(low) : ord(high) + 1] = True
    return table


_RUN_TABLE: Final = _run_table()
