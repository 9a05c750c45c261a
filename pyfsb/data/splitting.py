# SPDX-License-Identifier: Apache-2.0
"""Which rows to hold out, when rows that share something have to stay together.

A pure function of what the rows share; called by `labelled.hold_out`, never reads a row itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from pyfsb import seeding

Marks: TypeAlias = Sequence[bytes]
"""What a row may share with others; the first one is its key, at least 8 bytes."""


def choose_held_out(
    marks: Sequence[Marks],
    labels: Sequence[frozenset[str]],
    *,
    num_wanted: int,
    num_limit: int,
    seed: int,
) -> set[int]:
    """Return the numbers of the rows to hold out.

    Groups are taken in the order of a hash of their keys while they fit; if that leaves too few
    rows, the smallest group that the limit allows is added. A group that holds the last training
    rows of a label is never taken.

    Args:
        marks: For each row its marks; rows with a common mark are one group, also through others.
        labels: For each row its labels.
        num_wanted: Rows to hold out.
        num_limit: Rows to hold out at most.
        seed: Of the order.
    """
    groups = sorted(_related(marks), key=lambda group: _rank(group, marks, seed))
    found = [frozenset().union(*(labels[row] for row in group)) for group in groups]
    num_left = Counter(label for names in found for label in names)
    held: set[int] = set()
    by_size = sorted(range(len(groups)), key=lambda number: len(groups[number]))
    for bound, order in ((num_wanted, range(len(groups))), (num_limit, by_size)):
        for number in order:
            rows, names = groups[number], found[number]
            is_free = held.isdisjoint(rows) and all(num_left[name] > 1 for name in names)
            if len(held) < num_wanted and is_free and len(held) + len(rows) <= bound:
                held.update(rows)
                num_left.subtract(names)
    return held


def _related(marks: Sequence[Marks]) -> list[list[int]]:
    """Return the numbers of the rows, grouped by what they share."""
    parents = list(range(len(marks)))

    def find(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    owners: dict[bytes, int] = {}
    for number, row_marks in enumerate(marks):
        for mark in row_marks:
            parents[find(number)] = find(owners.setdefault(mark, number))
    groups: dict[int, list[int]] = {}
    for number in range(len(marks)):
        groups.setdefault(find(number), []).append(number)
    return list(groups.values())


def _rank(group: Sequence[int], marks: Sequence[Marks], seed: int) -> int:
    """Return a group's place in the order; depends on its texts, not on its size."""
    key = min(marks[row][0] for row in group)
    return int(seeding.hash64(seed, int.from_bytes(key[:8], "little")))
