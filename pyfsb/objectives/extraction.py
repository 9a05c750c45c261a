# SPDX-License-Identifier: Apache-2.0
"""What UBERT and UniEX look for in a text, and how cells of their squares become spans.

Shapes: W scored tokens of a text, L label slots, C kinds.

A cell (i, j) of a square says whether the tokens i to j are a span. Pure functions of arrays; the
encodings are in `extraction_ubert` and `extraction_uniex`.

Source: fengshen/models/{ubert,uniex} of Fengshenbang-LM c8fb7b8. That only cells of text on and
above the diagonal count, and the limits on what is returned, are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import DataError
from pyfsb.objectives.row_objective import PLACE, Small, Tokenize, Tokenized

CLASSIFICATION_TASK: Final = "分类任务"
"""Task whose kinds are labels of the whole text; other tasks look for spans."""
READING_TASK: Final = "抽取式阅读理解"
"""Subtask (UniEX: task) whose kinds are questions with one answer each."""
PAIR_MARK: Final = "[SEP]"
"""Stands in a text where its second part begins, as in the published rows of pairs."""
MIN_TEXT_TOKENS: Final = 8
"""Tokens that kinds must leave to a text of that length (our choice)."""
MAX_SPANS: Final = 512
"""Spans of one kind at most, the best ones (our choice)."""
MAX_PAIRED_SPANS: Final = 64
"""Spans that are paired for relations at most, the best heads and tails (our choice)."""

Floats: TypeAlias = NDArray[Any]
Cell: TypeAlias = tuple[int, int, float]
"""First and last token of a span, counted in the text, and its score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldSpan:
    """A span of a text."""

    start: int
    """First character."""
    end: int
    """One past the last character."""
    kind: int
    """Number of its kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldRelation:
    """What holds between two spans."""

    subject: int
    """Number of a span."""
    predicate: str
    """Its name."""
    object: int
    """Number of a span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSample:
    """A text and the kinds that are looked for in it."""

    text: str
    kinds: tuple[str, ...]
    """Entity types, questions or, of a classification, labels; all different."""
    task: str
    """Written before the kinds."""
    subtask: str = ""
    """Likewise; UBERT only."""
    spans: tuple[GoldSpan, ...] = ()
    """What is right."""
    answers: frozenset[int] = frozenset()
    """Right kinds of a classification."""
    schema: tuple[tuple[str, str, str], ...] = ()
    """Relations that are looked for: kind of the subject, predicate, kind of the object; UniEX
    only."""
    relations: tuple[GoldRelation, ...] = ()
    """Right relations."""

    @property
    def is_classification(self) -> bool:
        """Whether kinds are labels of the text as a whole."""
        return self.task == CLASSIFICATION_TASK

    @property
    def predicates(self) -> tuple[str, ...]:
        """The predicates of the schema, each once."""
        return tuple(dict.fromkeys(predicate for _, predicate, _ in self.schema))


def check_sample(sample: ExtractionSample) -> None:
    """Refuse a sample that nothing can be made of.

    Raises:
        DataError: No kinds, a kind that is empty or stands twice, or a relation between unknown
            kinds.
    """
    if not sample.kinds:
        raise DataError("no kinds to look for")
    for number, kind in enumerate(sample.kinds):
        if not kind.strip():
            raise DataError(f"kind {number} ({kind!r}) is empty")
        if kind in sample.kinds[:number]:
            raise DataError(f"kind {number} ({kind[:20]!r}) stands twice")
    for head, predicate, tail in sample.schema:
        for kind in (head, tail):
            if kind not in sample.kinds:
                known = ", ".join(sample.kinds[:20])
                raise DataError(
                    f"relation {predicate!r} names {kind!r}, which is not one of {known}"
                )


def knows_pairs(tokenize: Tokenize, separator_id: int) -> Tokenize:
    """Return a callable that makes the separator of every pair mark in a text.

    Args:
        tokenize: The tokenizer's, to which special tokens in a text are text like any other.
        separator_id: Id of the separator.
    """

    def tokenize_parts(text: str, template: str = PLACE, /) -> Tokenized:
        if PAIR_MARK not in text:
            return tokenize(text, template)
        parts: list[tuple[Small, Small]] = []
        place = 0
        for part in text.split(PAIR_MARK):
            if parts:
                mark = np.array([[place - len(PAIR_MARK), place]], dtype=np.int32)
                parts.append((np.array([separator_id], dtype=np.int32), mark))
            tokens = tokenize(part)
            parts.append((tokens.ids_T, tokens.offsets_T2 + np.int32(place)))
            place += len(part) + len(PAIR_MARK)
        ids, offsets = zip(*parts, strict=True)
        return Tokenized(ids_T=np.concatenate(ids), offsets_T2=np.concatenate(offsets))

    return tokenize_parts


def find_cell(
    offsets_T2: Small, start: int, end: int, *, is_cut: bool = False
) -> tuple[int, int] | None:
    """Return the first and the last token of the characters `start` to `end` (exclusive).

    Args:
        offsets_T2: Characters of the tokens.
        start: First character of a span.
        end: One past its last.
        is_cut: Whether tokens were cut off; a span that may go on there is left out.

    Returns:
        None if the span has no token. Tokens that a boundary goes through count as inside.
    """
    covers_T = (offsets_T2[:, 0] < end) & (offsets_T2[:, 1] > start)
    places = np.flatnonzero(covers_T)
    if not places.size or (is_cut and offsets_T2[-1, 1] < end):
        return None
    return int(places[0]), int(places[-1])


def measure_cell(text: str, start: int, end: int, tokenize: Tokenize) -> tuple[int, int]:
    """Return the cell of a span as the original finds it.

    It counts the tokens of the text up to both ends; where a boundary goes through a token, that
    is another cell than the span's.
    """
    return tokenize(text[:start]).ids_T.size, tokenize(text[:end]).ids_T.size - 1


def find_spans(
    scores_WW: Floats, *, threshold: float, max_spans: int | None = MAX_SPANS
) -> list[Cell]:
    """Return the cells on or above the diagonal whose score exceeds a threshold, row by row.

    Args:
        scores_WW: Probabilities.
        threshold: Exclusive.
        max_spans: The best ones at most. None returns all.
    """
    firsts, lasts = np.nonzero(np.triu(scores_WW > threshold))
    scores = scores_WW[firsts, lasts]
    if max_spans is not None and scores.size > max_spans:
        kept = np.sort(np.argsort(-scores, kind="stable")[:max_spans])
        firsts, lasts, scores = firsts[kept], lasts[kept], scores[kept]
    return list(zip(firsts.tolist(), lasts.tolist(), scores.tolist(), strict=True))


def find_best_span(scores_WW: Floats, *, threshold: float) -> Cell | None:
    """Return the best cell on or above the diagonal; None if no score exceeds the threshold."""
    if not scores_WW.size:
        return None
    upper_WW = np.where(np.triu(np.ones(scores_WW.shape, dtype=np.bool_)), scores_WW, -np.inf)
    first, last = np.unravel_index(int(np.argmax(upper_WW)), upper_WW.shape)
    score = float(scores_WW[first, last])
    return (int(first), int(last), score) if score > threshold else None


def characters_of(offsets_T2: Small, first: int, last: int) -> tuple[int, int]:
    """Return the first character of a run of tokens and one past its last."""
    return int(offsets_T2[first, 0]), int(offsets_T2[last, 1])


def name_longest_kind(kinds: Sequence[str], sizes: Sequence[int], room: int, limit: int) -> str:
    """Say that a kind leaves too little room for the text."""
    longest = max(range(len(kinds)), key=lambda number: sizes[number])
    return (
        f"kind {longest} ({kinds[longest][:20]!r}) has {sizes[longest]} tokens and leaves "
        f"{max(0, room)} of {limit} to the text; at least {MIN_TEXT_TOKENS} are needed: shorten it"
    )
