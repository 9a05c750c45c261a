# SPDX-License-Identifier: Apache-2.0
"""Trains a unigram vocabulary: pieces with log probabilities, as SentencePiece has them.

Seeds are the substrings that occur most; then the text is cut again and again in the likeliest way
and pieces that are missed least are dropped, until the vocabulary has its size. Counts are whole
numbers and ties go to the smaller piece, so the same text gives the same vocabulary on any number
of threads (`tokenizers`' own trainer sums in the order of a hash map and differs from run to run).
Called by `tokenizer_training`; never imports transformers.

Source: Kudo 2018, "Subword Regularization", with the likeliest cut in place of expected counts (our
choice: whole numbers); coverage 0.9995 and pieces of at most six characters are those published for
Randeng-BART-139M.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from pyfsb.errors import DataError

Ints: TypeAlias = NDArray[np.int64]
MAX_PIECE_CHARACTERS: Final = 6
COVERAGE: Final = 0.9995
_ALPHABET_SHARE: Final = 0.875
"""Share of the pieces that single characters may take, as in a WordPiece vocabulary."""
_SEEDS_A_PIECE: Final = 4
_KEPT_SHARE: Final = 0.75
"""Of the pieces, those that one round of dropping keeps (Kudo 2018)."""
_BATCH_CHARACTERS: Final = 20_000
_SEPARATOR: Final = "\n"


def train_pieces(segments: Mapping[str, int], *, size: int) -> list[tuple[str, float]]:
    """Return pieces with their log probabilities, the likeliest first.

    Args:
        segments: Stretches of text that pieces never reach out of, with how often each occurs.
        size: Pieces at most; every character of `COVERAGE` of the text is one.

    Raises:
        DataError: The segments hold no character.
    """
    counts: Counter[str] = Counter()
    for segment, count in segments.items():
        for character in segment:
            counts[character] += count
    alphabet = _choose_alphabet(counts, limit=max(1, int(size * _ALPHABET_SHARE)))
    if not alphabet:
        raise DataError("the corpus holds no text to train a vocabulary on")
    text = _TrainingText(segments, alphabet)
    pieces = {character: counts[character] for character in alphabet}
    pieces |= _seeds(text, alphabet, limit=max(0, _SEEDS_A_PIECE * size))
    while True:
        scores = _recount(text, _recount(text, _scores(pieces), pieces), pieces)
        if len(pieces) <= size:
            break
        pieces = _drop(pieces, scores, size=max(size, int(_KEPT_SHARE * len(pieces))))
    return sorted(
        ((piece, round(score, 6)) for piece, score in scores.items()),
        key=lambda item: (-item[1], item[0]),
    )


def _choose_alphabet(counts: Counter[str], *, limit: int) -> list[str]:
    """Return the commonest characters, in code-point order."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total, seen, chosen = counts.total(), 0, []
    for character, count in ranked[:limit]:
        if seen >= COVERAGE * total:
            break
        seen += count
        chosen.append(character)
    return sorted(chosen)


class _TrainingText:
    """Different segments, cut at characters outside the alphabet, grouped by how often they are."""

    def __init__(self, segments: Mapping[str, int], alphabet: Sequence[str]) -> None:
        known = set(alphabet)
        parts: Counter[str] = Counter()
        for segment, count in segments.items():
            if known.issuperset(segment):
                parts[segment] += count
            else:
                kept = [character if character in known else _SEPARATOR for character in segment]
                for part in "".join(kept).split(_SEPARATOR):
                    parts[part] += count
        parts.pop("", None)
        by_count = sorted(parts.items(), key=lambda item: (item[1], item[0]))
        self.groups = [
            (count, list(_joined(part for part, _ in items)))
            for count, items in groupby(by_count, key=lambda item: item[1])
        ]
        """For each number of times the segments that occur as often, joined into lines."""


def _joined(parts: Iterable[str]) -> Iterator[str]:
    """Yield parts joined into texts of some length."""
    batch: list[str] = []
    num_characters = 0
    for part in parts:
        batch.append(part)
        num_characters += len(part)
        if num_characters >= _BATCH_CHARACTERS:
            yield _SEPARATOR.join(batch)
            batch, num_characters = [], 0
    if batch:
        yield _SEPARATOR.join(batch)


def _seeds(text: _TrainingText, alphabet: Sequence[str], *, limit: int) -> dict[str, int]:
    """Return the substrings that stand for most characters of the text, with their counts.

    One length after the other: a substring is a shorter one, by its number, and one character
    more, so pairs of numbers are all that is compared. What occurs once is no seed.
    """
    joined = [(_SEPARATOR + block, count) for count, blocks in text.groups for block in blocks]
    whole = "".join(block for block, _ in joined) + _SEPARATOR
    weights = np.repeat(
        np.array([count for _, count in joined] + [0], dtype=np.int64),
        [len(block) for block, _ in joined] + [1],
    )
    points = np.frombuffer(whole.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    codes = np.searchsorted(np.array([ord(character) for character in alphabet]), points)
    codes[points == ord(_SEPARATOR)] = -1
    places, numbers = np.flatnonzero(codes >= 0), codes[codes >= 0]
    found: list[tuple[int, str, int]] = []
    for length in range(2, MAX_PIECE_CHARACTERS + 1):
        fits = codes[np.minimum(places + length - 1, codes.size - 1)] >= 0
        places, numbers = places[fits], numbers[fits]
        keys = numbers * len(alphabet) + codes[places + length - 1]
        _, first, numbers, _ = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        counts = np.bincount(numbers, weights=weights[places]).astype(np.int64)
        chosen = np.flatnonzero(counts > 1)
        for number in chosen[np.argsort(-counts[chosen], kind="stable")][:limit].tolist():
            start, count = int(places[first[number]]), int(counts[number])
            found.append((-count * length, whole[start : start + length], count))
        is_repeated = counts[numbers] > 1
        places, numbers = places[is_repeated], numbers[is_repeated]
    return {piece: count for _, piece, count in sorted(found)[:limit]}


def _scores(pieces: Mapping[str, int]) -> dict[str, float]:
    """Return the log probability of every piece; one that was not used counts as half a time."""
    total = math.log(sum(max(count, 0.5) for count in pieces.values()))
    return {piece: math.log(max(count, 0.5)) - total for piece, count in pieces.items()}


def _recount(
    text: _TrainingText, scores: Mapping[str, float], pieces: dict[str, int]
) -> dict[str, float]:
    """Cut the text in the likeliest way; put counts into `pieces` and return new scores.

    Pieces of several characters that are not used go, but for those that a smaller piece needs.
    """
    names = list(scores)
    vocabulary = [("\0", -1e3), *((name, scores[name]) for name in names)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_SEPARATOR, "removed")
    totals = np.zeros(len(vocabulary), dtype=np.int64)
    for count, blocks in text.groups:
        for start in range(0, len(blocks), 64):
            for encoding in tokenizer.encode_batch_fast(blocks[start : start + 64]):
                totals += count * np.bincount(encoding.ids, minlength=len(vocabulary))
    pieces.clear()
    for name, count in zip(names, totals[1:].tolist(), strict=True):
        if count or len(name) == 1:
            pieces[name] = count
    return _scores(pieces)


def _drop(pieces: Mapping[str, int], scores: Mapping[str, float], *, size: int) -> dict[str, int]:
    """Keep single characters and the pieces without which the text would be least likely."""
    singles = {piece: count for piece, count in pieces.items() if len(piece) == 1}
    losses = [
        (-count * (scores[piece] - _next_best(piece, scores)), piece)
        for piece, count in pieces.items()
        if len(piece) > 1
    ]
    kept = sorted(losses)[: max(0, size - len(singles))]
    return singles | {piece: pieces[piece] for _, piece in kept}


def _next_best(piece: str, scores: Mapping[str, float]) -> float:
    """Return the log probability of the likeliest cut of a piece into others."""
    best = [0.0] + [-math.inf] * len(piece)
    for stop in range(1, len(piece) + 1):
        for start in range(stop):
            part = piece[start:stop]
            if len(part) < len(piece) and part in scores:
                best[stop] = max(best[stop], best[start] + scores[part])
    return best[-1]
