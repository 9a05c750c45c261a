# SPDX-License-Identifier: Apache-2.0
"""Makes ZEN's n-gram lexicon of a corpus, by pointwise mutual information (PMI).

Two tokens a, b that stand side by side c(a b) times in N tokens with P such pairs hold together by

    PMI(a, b) = log2( c(a b) / P  /  ( c(a) / N * c(b) / N ) )   bits.

A text is cut between tokens that hold together by less than `min_pmi`, at document ends, and around
tokens that are no letters or digits. What lies between two cuts, 2 to `max_length` tokens, is an
n-gram; it is kept if it was found `min_count` times, and the `max_size` most frequent ones get the
ids from 1 in the order of their counts. Called by the data stage; never reads a file.

Source: ZEN's lexicons were "extracted by PMI" (Song et al. 2021, arXiv:2105.01279); thresholds were
not published with them. Our choice: cutting at weak pairs and counting what is left, that a segment
of more tokens than `max_length` is cut at its weakest pairs until it fits, and the defaults.

Shapes: N tokens of a chunk of documents, S segments, L tokens of the longest n-gram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import ConfigError, DataError
from pyfsb.tokenizers.ngram_counting import PADDING, RunCounter
from pyfsb.tokenizers.ngram_lexicon import (
    MAX_LENGTH,
    MIN_LENGTH,
    UNKNOWN,
    Encode,
    NgramKind,
    NgramLexicon,
)
from pyfsb.tokenizers.ngram_trie import Ints

Documents = Callable[[], Iterable[NDArray[np.integer]]]
"""Gives the token ids of the documents, twice the same."""

DEFAULT_MIN_PMI: Final = 4.0
DEFAULT_MIN_COUNT: Final = 5
DEFAULT_MAX_SIZE: Final = 104_000
MAX_RUNS: Final = 1 << 23
_CHUNK_TOKENS: Final = 1 << 21
_NO_TIE: Final = -np.inf


def train_lexicon(
    documents: Documents,
    *,
    pieces: Sequence[str],
    encode: Encode,
    kind: NgramKind | str = NgramKind.ZEN2,
    min_count: int = DEFAULT_MIN_COUNT,
    min_pmi: float = DEFAULT_MIN_PMI,
    max_length: int = MAX_LENGTH,
    max_size: int = DEFAULT_MAX_SIZE,
    max_runs: int = MAX_RUNS,
) -> NgramLexicon:
    """Return the lexicon of a corpus; the same documents in the same order give the same one.

    Args:
        documents: Called twice, for token ids without special tokens.
        pieces: The vocabulary, ids in order.
        encode: The vocabulary's; n-grams whose text becomes other tokens are left out.
        kind: Whose conventions the lexicon follows.
        min_count: Times that an n-gram must be found.
        min_pmi: Bits by which neighbours within an n-gram must hold together.
        max_length: Tokens of an n-gram at most, 2 to 7.
        max_size: N-grams at most.
        max_runs: Kinds of pairs and of n-grams that are counted at a time: about 150 bytes each
            at the worst.

    Raises:
        ConfigError: A setting is out of its range.
        DataError: The corpus gives no n-gram.
    """
    if not MIN_LENGTH <= max_length <= MAX_LENGTH:
        raise ConfigError(f"max_length = {max_length}: expected {MIN_LENGTH} to {MAX_LENGTH}")
    if min_count < 1 or max_size < 1 or max_runs < 2:
        raise ConfigError(
            f"min_count = {min_count}, max_size = {max_size}, max_runs = {max_runs}: expected 1 or "
            "more, max_runs 2"
        )
    is_word = _is_word(pieces)
    ties = _Ties(documents, is_word, max_runs=max_runs)
    counter = RunCounter(max_length, max_runs=max_runs)
    for ids_N, ends_N in _chunks(documents()):
        ties_N = ties.of(ids_N, ends_N)
        ties_N[ties_N < min_pmi] = _NO_TIE
        for runs_SL in _segments(ids_N, ties_N, max_length):
            counter.add(runs_SL)
    runs, counts = counter.result()
    lines = list(_lines(runs, counts, pieces, encode, min_count=min_count, max_size=max_size))
    if not lines:
        raise DataError(
            f"the corpus gives no n-gram: none of 2 to {max_length} pieces stands {min_count} times"
            f" with {min_pmi} bits between its neighbours; use more text, or lower the bounds"
        )
    unknown_id = pieces.index(UNKNOWN) if UNKNOWN in pieces else None
    return NgramLexicon(lines, kind=NgramKind(kind), encode=encode, unknown_id=unknown_id)


def _is_word(pieces: Sequence[str]) -> NDArray[np.bool_]:
    """Mark pieces of letters and digits: no special tokens, no punctuation, and so no comma."""
    return np.array([piece.removeprefix("##").isalnum() for piece in pieces], dtype=np.bool_)


def _chunks(documents: Iterable[NDArray[np.integer]]) -> Iterator[tuple[Ints, NDArray[np.bool_]]]:
    """Yield tokens of whole documents, about 2 million at a time, and which are the last of one."""
    waiting: list[NDArray[np.integer]] = []
    num_tokens = 0
    for document in documents:
        if not document.size:
            continue
        waiting.append(document)
        num_tokens += document.size
        if num_tokens >= _CHUNK_TOKENS:
            yield _join(waiting)
            waiting, num_tokens = [], 0
    if waiting:
        yield _join(waiting)


def _join(documents: list[NDArray[np.integer]]) -> tuple[Ints, NDArray[np.bool_]]:
    ids_N = np.concatenate(documents).astype(np.int64)
    ends_N = np.zeros(ids_N.size, dtype=np.bool_)
    ends_N[np.cumsum([document.size for document in documents]) - 1] = True
    return ids_N, ends_N


class _Ties:
    """How strongly neighbours hold together."""

    def __init__(self, documents: Documents, is_word: NDArray[np.bool_], *, max_runs: int) -> None:
        self._is_word = is_word
        singles = np.zeros(is_word.size, dtype=np.int64)
        counter = RunCounter(2, max_runs=max_runs)
        num_pairs = 0
        for ids_N, ends_N in _chunks(documents()):
            if ids_N.min() < 0 or ids_N.max() >= is_word.size:
                raise DataError(
                    f"token id {ids_N.max()}: the vocabulary has {is_word.size} pieces; the "
                    "documents are of another one"
                )
            singles += np.bincount(ids_N, minlength=is_word.size)
            firsts = self._pairs(ids_N, ends_N)
            counter.add(np.stack([ids_N[firsts], ids_N[firsts + 1]], axis=1))
            num_pairs += int(ids_N.size - ends_N.sum())
        pairs, counts = counter.result()
        left, right = pairs.T
        self._keys = left * is_word.size + right  # ascending, as the pairs are
        self._values = (
            np.log2(counts / max(num_pairs, 1))
            - np.log2(singles[left] / singles.sum())
            - np.log2(singles[right] / singles.sum())
        )

    def of(self, ids_N: Ints, ends_N: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the PMI of each token with the next one; minus infinity: never together."""
        ties_N = np.full(ids_N.size, _NO_TIE)
        if not self._keys.size:
            return ties_N
        firsts = self._pairs(ids_N, ends_N)
        keys = ids_N[firsts] * self._is_word.size + ids_N[firsts + 1]
        places = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        ties_N[firsts] = np.where(self._keys[places] == keys, self._values[places], _NO_TIE)
        return ties_N

    def _pairs(self, ids_N: Ints, ends_N: NDArray[np.bool_]) -> Ints:
        """Return the first tokens of the pairs that an n-gram may hold."""
        is_word_N = self._is_word[ids_N]
        return np.flatnonzero(is_word_N[:-1] & is_word_N[1:] & ~ends_N[:-1])


def _segments(ids_N: Ints, ties_N: NDArray[np.float64], max_length: int) -> Iterator[Ints]:
    """Yield what hangs together, runs [S, L] filled up with -1; cuts too long ones in `ties_N`."""
    while True:
        is_start_N = np.concatenate([[True], ties_N[:-1] == _NO_TIE])
        starts = np.flatnonzero(is_start_N)
        lengths = np.diff(starts, append=ids_N.size)
        is_long = lengths > max_length
        if not is_long.any():
            break
        # The last tie of a segment is the cut behind it, so it does not count for the weakest.
        inner_N = np.where(ties_N == _NO_TIE, np.inf, ties_N)
        weakest = np.repeat(
            np.where(is_long, np.minimum.reduceat(inner_N, starts), np.nan), lengths
        )
        ties_N[inner_N == weakest] = _NO_TIE
    is_run = lengths >= MIN_LENGTH
    starts, lengths = starts[is_run], lengths[is_run]
    columns_L = np.arange(max_length)
    places_SL = np.minimum(starts[:, None] + columns_L, ids_N.size - 1)
    yield np.where(columns_L < lengths[:, None], ids_N[places_SL], PADDING)


def _lines(
    runs_SL: Ints,
    counts: Ints,
    pieces: Sequence[str],
    encode: Encode,
    *,
    min_count: int,
    max_size: int,
) -> Iterator[str]:
    """Yield the lines of the lexicon, the most frequent first; ties by the tokens' ids."""
    frequent = np.flatnonzero(counts >= min_count)
    order = frequent[np.argsort(-counts[frequent], kind="stable")]
    num_lines = 0
    for first in range(0, order.size, max_size):
        chosen = order[first : first + max_size]
        runs = [[i for i in run if i != PADDING] for run in runs_SL[chosen].tolist()]
        texts = [_text([pieces[i] for i in run]) for run in runs]
        for run, text, count, found in zip(
            runs, texts, counts[chosen].tolist(), encode(texts), strict=True
        ):
            if list(found) == run and num_lines < max_size:
                num_lines += 1
                yield f"{text},{count}"
        if num_lines == max_size:
            return


def _text(run: Sequence[str]) -> str:
    """Return a text of pieces: words of more than one letter need spaces, hanzi have none."""
    text = ""
    for piece in run:
        if piece.startswith("##"):
            text += piece[2:]
        else:
            is_apart = text and text[-1].isascii() and piece[0].isascii()
            text += f" {piece}" if is_apart else piece
    return text
