# SPDX-License-Identifier: Apache-2.0
"""UniEX: from the probabilities of a cube of cells to typed spans and relations between them.

Shapes: W tokens of a text, L label slots (the first says "a span", then kinds, then predicates).

Pure functions of arrays; called by `pyfsb.inference.extract`.

Source: fengshen/models/uniex of Fengshenbang-LM c8fb7b8: the best kind of a cell alone counts; the
predicate of a pair is the best one at the first tokens or at the last ones, whichever has the
higher sum over both. What bounds the number of pairs is our choice (the original drops all spans
of a text that has more than half as many as tokens).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pyfsb.objectives.extraction import (
    MAX_PAIRED_SPANS,
    MAX_SPANS,
    ExtractionSample,
    Floats,
    find_spans,
)
from pyfsb.objectives.extraction_uniex import INDEX_SLOT


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedSpan:
    """A span that was found."""

    first: int
    """First token, counted in the text."""
    last: int
    """Last token."""
    kind: int
    """Number of its kind."""
    score: float
    """Probability of the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPair:
    """A relation that was found."""

    subject: TypedSpan
    """The first span."""
    predicate: str
    """Name of the relation."""
    object: TypedSpan
    """The second span."""
    score: float
    """Mean probability at both ends."""


def find_typed_spans(
    scores_WWL: Floats,
    kinds: Sequence[int],
    *,
    threshold: float,
    two_step: bool = False,
    max_spans: int | None = MAX_SPANS,
) -> list[TypedSpan]:
    """Return the spans whose best kind exceeds a threshold, row by row.

    Args:
        scores_WWL: Probabilities of all cells.
        kinds: Numbers of the kinds that take part.
        threshold: Exclusive.
        two_step: Apply the threshold to "is a span" and take the best kind, whatever its score.
        max_spans: The best ones at most. None returns all.
    """
    if not kinds:
        return []
    kinds_WWK = scores_WWL[..., [1 + kind for kind in kinds]]
    best_WW = kinds_WWK.max(-1)
    decides_WW = scores_WWL[..., INDEX_SLOT] if two_step else best_WW
    return [
        TypedSpan(
            first=first,
            last=last,
            kind=kinds[int(kinds_WWK[first, last].argmax())],
            score=float(best_WW[first, last]),
        )
        for first, last, _ in find_spans(decides_WW, threshold=threshold, max_spans=max_spans)
    ]


def split_kinds(sample: ExtractionSample) -> tuple[list[int], list[int], list[int]]:
    """Return the kinds that are subjects of relations, those that are objects, and the others."""
    heads = dict.fromkeys(sample.kinds.index(head) for head, _, _ in sample.schema)
    tails = dict.fromkeys(sample.kinds.index(tail) for _, _, tail in sample.schema)
    others = [n for n in range(len(sample.kinds)) if n not in heads and n not in tails]
    return list(heads), list(tails), others


def find_groups(
    scores_WWL: Floats, sample: ExtractionSample, *, threshold: float, two_step: bool
) -> tuple[list[TypedSpan], ...]:
    """Return the spans that may be subjects, those that may be objects, and the others.

    A span may be in the first two groups, each time of the best kind that the group has. In two
    steps it has one kind, since nothing else would keep it out of a group.
    """
    groups = split_kinds(sample)
    if not two_step:
        return tuple(find_typed_spans(scores_WWL, own, threshold=threshold) for own in groups)
    every = range(len(sample.kinds))
    found = find_typed_spans(scores_WWL, every, threshold=threshold, two_step=True)
    return tuple([span for span in found if span.kind in own] for own in groups)


def find_relations(
    scores_WWL: Floats,
    sample: ExtractionSample,
    heads: Sequence[TypedSpan],
    tails: Sequence[TypedSpan],
    *,
    threshold: float,
    max_spans: int | None = MAX_PAIRED_SPANS,
) -> list[FoundPair]:
    """Return the relations between spans, subject by subject.

    Args:
        scores_WWL: Probabilities of all cells.
        sample: Its schema says which kinds a predicate joins.
        heads: Spans that may be subjects.
        tails: Spans that may be objects.
        threshold: Of the mean probability at both ends, exclusive.
        max_spans: Subjects and objects at most, the best ones of each. None takes all.
    """
    predicates = sample.predicates
    joins: dict[tuple[int, int], list[str]] = {}
    for head, predicate, tail in sample.schema:
        joined = joins.setdefault((sample.kinds.index(head), sample.kinds.index(tail)), [])
        if predicate not in joined:
            joined.append(predicate)
    found: list[FoundPair] = []
    for subject, target in _pairs(heads, tails, max_spans):
        names = joins.get((subject.kind, target.kind))
        if names is None:
            continue
        slots = [1 + len(sample.kinds) + predicates.index(name) for name in names]
        at_first = scores_WWL[subject.first, target.first, slots]
        at_last = scores_WWL[subject.last, target.last, slots]
        sums = at_first + at_last
        by_first, by_last = int(at_first.argmax()), int(at_last.argmax())
        best = by_first if sums[by_first] > sums[by_last] else by_last
        if sums[best] / 2 > threshold:
            found.append(
                FoundPair(
                    subject=subject,
                    predicate=names[best],
                    object=target,
                    score=float(sums[best] / 2),
                )
            )
    return found


def _pairs(
    heads: Sequence[TypedSpan], tails: Sequence[TypedSpan], max_spans: int | None
) -> Iterator[tuple[TypedSpan, TypedSpan]]:
    for head in _best(heads, max_spans):
        for tail in _best(tails, max_spans):
            yield head, tail


def _best(spans: Sequence[TypedSpan], max_spans: int | None) -> list[TypedSpan]:
    """Return the best spans in their order."""
    order = np.argsort([-span.score for span in spans], kind="stable")[:max_spans]
    return [spans[number] for number in sorted(order.tolist())]
