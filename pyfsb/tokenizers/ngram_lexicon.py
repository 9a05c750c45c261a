# SPDX-License-Identifier: Apache-2.0
"""The n-gram lexicon of ZEN: ngram.txt beside a vocabulary, and where its n-grams lie in texts.

A line is `ngram,frequency`; the id of an n-gram is the number of its line from 1, 0 is padding.
Used by objectives and the tokenizer; made of a corpus by `ngram_training`. Never imports torch or
transformers: what turns a line into token ids comes in through a callable.

Shapes: B documents, N tokens of all documents end to end, G n-grams of all documents.

Source: conventions of IDEA-CCNL/Fengshenbang-LM's zen1 and zen2 at c8fb7b8, given by the reference
cases `ngram_zen1` and `ngram_zen2`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import ConfigError, DataError, UnknownNameError
from pyfsb.seeding import UInt64s, uniform
from pyfsb.tokenizers.ngram_trie import MAX_TOKEN_ID, Ints, Trie

NGRAM_FILE: Final = "ngram.txt"
MIN_LENGTH, MAX_LENGTH = 2, 7
"""Tokens of an n-gram that is looked for."""
MAX_NGRAMS: Final = 128
"""N-grams of a text that has all the tokens it may have."""
UNKNOWN: Final = "[UNK]"

Encode: TypeAlias = Callable[[list[str]], Iterable[Sequence[int]]]
"""Token ids of texts, without special tokens around them."""


class NgramKind(StrEnum):
    """Whose conventions a lexicon follows."""

    ZEN1 = "zen1"
    """Every line must be right; too many n-grams are thinned out at random."""
    ZEN2 = "zen2"
    """Wrong lines are skipped, n-grams with unknown tokens never match, they come in the order of
    their ids, and of too many the first ones stay."""

    @classmethod
    def _missing_(cls, value: object) -> Self:
        raise UnknownNameError("kind of n-gram lexicon", str(value), [kind.value for kind in cls])


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramMatches:
    """N-grams of documents, those of one document together."""

    ids_G: Ints
    """Their ids in the lexicon."""
    starts_G: Ints
    """First token of each: an index into N."""
    lengths_G: Ints
    """Tokens of each."""
    frequencies_G: Ints
    """What the lexicon says of how often each is."""
    counts_B: Ints
    """N-grams of each document; their sum is G."""

    @property
    def arguments(self) -> dict[str, Ints]:
        """The arrays by the names that models take them by."""
        return {
            "ngram_ids": self.ids_G,
            "ngram_starts": self.starts_G,
            "ngram_lengths": self.lengths_G,
            "ngram_frequencies": self.frequencies_G,
            "ngram_counts": self.counts_B,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramLimit:
    """How many n-grams a text may have: `ceil(tokens / max_tokens * max_ngrams)`."""

    max_tokens: int
    """Tokens of the longest text."""
    max_ngrams: int = MAX_NGRAMS
    """N-grams of such a text."""

    def of(self, lengths_B: Ints) -> Ints:
        """Return the most n-grams that texts of these lengths may have."""
        # In this order of operations, as the original rounds.
        return np.ceil(lengths_B / self.max_tokens * self.max_ngrams).astype(np.int64)


class NgramLexicon:
    """N-grams with ids and frequencies."""

    def __init__(
        self, lines: Sequence[str], *, kind: NgramKind, encode: Encode, unknown_id: int | None
    ) -> None:
        """Build it.

        Args:
            lines: Of ngram.txt, in order, without line ends.
            kind: Whose conventions.
            encode: The vocabulary's; called once.
            unknown_id: Of the token for what the vocabulary lacks; None: it has none.

        Raises:
            DataError: A line is wrong and the kind does not skip it, or a frequency is no number.
        """
        self.kind = NgramKind(kind)
        self.lines = tuple(lines)
        numbers, texts, frequencies = self._parse()
        runs = [list(run) for run in encode(texts)] if texts else []
        if len(runs) != len(texts):
            raise DataError(f"{len(texts)} n-grams became {len(runs)} runs of tokens")
        self.num_ngrams = len(runs)
        """Lines that are n-grams; the others were skipped."""
        self._frequencies = np.zeros(self.size, dtype=np.int64)
        self._frequencies[numbers] = frequencies
        kept = [
            place
            for place, run in enumerate(runs)
            if MIN_LENGTH <= len(run) <= MAX_LENGTH
            and not (self.kind is NgramKind.ZEN2 and unknown_id in run)
        ]
        self.num_matchable = len(kept)
        """N-grams that can be found: their tokens are known, and 2 to 7."""
        self._trie = Trie([runs[place] for place in kept], [numbers[place] for place in kept])

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        kind: NgramKind | str,
        encode: Encode,
        unknown_id: int | None = None,
    ) -> Self:
        """Read ngram.txt.

        Args:
            path: The file, or the folder that it lies in.
            kind: Whose conventions: zen1 or zen2.
            encode: The vocabulary's.
            unknown_id: Of the token for what the vocabulary lacks.

        Raises:
            DataError: It is missing, not UTF-8, holds no n-gram, or a line is wrong.
        """
        file = Path(path) / NGRAM_FILE if Path(path).is_dir() else Path(path)
        try:
            with file.open(encoding="utf-8") as text:
                lines = [line.removesuffix("\n") for line in text]
        except FileNotFoundError:
            raise DataError(
                f"{file}: no n-gram lexicon; ZEN needs {NGRAM_FILE} beside its vocabulary, one "
                "`ngram,frequency` a line: take that of the checkpoint, or make one of the corpus "
                "(data.ngrams)"
            ) from None
        except UnicodeDecodeError as exc:
            raise DataError(f"{file} is not UTF-8: {exc}") from None
        try:
            lexicon = cls(lines, kind=NgramKind(kind), encode=encode, unknown_id=unknown_id)
        except DataError as exc:
            raise DataError(f"{file}: {exc}") from None
        if not lexicon.num_ngrams:
            raise DataError(f"{file} has {len(lines)} lines; expected some of `ngram,frequency`")
        return lexicon

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write ngram.txt into a folder, every line as it was read; return its path."""
        file = Path(folder) / NGRAM_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in self.lines)
        file.write_text(text, encoding="utf-8", newline="\n")
        return file

    @property
    def size(self) -> int:
        """Rows that a model's n-gram table needs: one for each line, and one for padding."""
        return len(self.lines) + 1

    def check_fits(self, word_size: int, *, source: str = "the model") -> None:
        """Refuse a lexicon with more n-grams than a model has rows for.

        Args:
            word_size: Rows of the model's n-gram table.
            source: Names the model.

        Raises:
            ConfigError: Names both numbers.
        """
        if self.size > word_size:
            raise ConfigError(
                f"the n-gram lexicon has {len(self.lines)} lines and needs word_size = {self.size}"
                f" (padding is one), {source} has {word_size}; take the lexicon that it was "
                "trained with, or set model.config.word_size of a new model"
            )

    def match(self, ids: Sequence[int] | Ints, *, limit: NgramLimit | None = None) -> NgramMatches:
        """Return the n-grams of one text; see `find`."""
        ids_N = np.asarray(ids, dtype=np.int64)
        return self.find(ids_N, np.array([ids_N.size]), limit=limit)

    def find(
        self,
        ids_N: Ints,
        lengths_B: Ints,
        *,
        limit: NgramLimit | None = None,
        keys_B: UInt64s | Ints | None = None,
    ) -> NgramMatches:
        """Return the n-grams of documents; they may overlap, and hold each other.

        Args:
            ids_N: Token ids, documents end to end, special tokens included.
            lengths_B: Tokens of each document.
            limit: How many n-grams texts may have; None: any number.
            keys_B: What the choice among too many depends on, a number a document (zen1). None
                keeps the shorter and earlier ones.

        Returns:
            Of each document in the order of length, then place (zen1), or of the id (zen2).

        Raises:
            DataError: A token id is negative or beyond 2^21 - 1.
        """
        ids_N = np.ascontiguousarray(ids_N, dtype=np.int64)
        if ids_N.size and not 0 <= ids_N.min() <= ids_N.max() <= MAX_TOKEN_ID:
            raise DataError(f"token ids from 0 to {MAX_TOKEN_ID} are expected")
        ends_N = np.repeat(np.cumsum(lengths_B), lengths_B)
        found = list(self._trie.walk(ids_N, ends_N - np.arange(ids_N.size)))
        starts_G = _join([starts for _, starts, _ in found])
        numbers_G = _join([numbers for _, _, numbers in found])
        lengths_G = np.repeat(
            np.array([length for length, _, _ in found], dtype=np.int64),
            np.array([starts.size for _, starts, _ in found], dtype=np.int64),
        )
        rows_G = np.searchsorted(np.cumsum(lengths_B), starts_G, side="right")
        # Stable: they come sorted by length and place.
        is_zen2 = self.kind is NgramKind.ZEN2
        order = np.lexsort((numbers_G, rows_G)) if is_zen2 else np.argsort(rows_G, kind="stable")
        if limit is not None:
            most_B = limit.of(lengths_B)
            chosen = order
            if keys_B is not None and not is_zen2:
                local_G = starts_G - (np.cumsum(lengths_B) - lengths_B)[rows_G]
                chosen = np.lexsort((uniform(keys_B[rows_G], local_G, lengths_G), rows_G))
            is_kept = np.zeros(order.size, dtype=np.bool_)
            is_kept[chosen[_rank(rows_G[chosen]) < most_B[rows_G[chosen]]]] = True
            order = order[is_kept[order]]
        return NgramMatches(
            ids_G=numbers_G[order],
            starts_G=starts_G[order],
            lengths_G=lengths_G[order],
            frequencies_G=self._frequencies[numbers_G[order]],
            counts_B=np.bincount(rows_G[order], minlength=lengths_B.size),
        )

    def _parse(self) -> tuple[list[int], list[str], list[int]]:
        """Return line numbers, texts and frequencies of the lines that count."""
        numbers: list[int] = []
        texts: list[str] = []
        frequencies: list[int] = []
        is_zen2 = self.kind is NgramKind.ZEN2
        for number, line in enumerate(self.lines, start=1):
            items = (line.strip() if is_zen2 else line).split(",")
            if len(items) != 2:
                if is_zen2:
                    continue
                raise DataError(f"line {number}: {line[:40]!r}; expected `ngram,frequency`")
            try:
                frequencies.append(int(items[1]))
            except ValueError:
                raise DataError(
                    f"line {number}: frequency {items[1][:40]!r} is no number"
                ) from None
            numbers.append(number)
            texts.append(items[0])
        return numbers, texts, frequencies


def _join(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _rank(rows_G: NDArray[np.int64]) -> Ints:
    """Return how many came before in the same row; rows are in order."""
    return np.arange(rows_G.size) - np.searchsorted(rows_G, rows_G)
