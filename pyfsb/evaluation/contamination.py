# SPDX-License-Identifier: Apache-2.0
"""Which held-out rows the training rows give away.

A row overlaps when its texts, white space aside, stand in a training row (of a pair also in the
other order), or when both were made from one template (`TaskSpec.template` names the field).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyfsb.data.labelled import Example


def find_overlap(train: Iterable[Example], held_out: Sequence[Example]) -> list[bool]:
    """Return for each held-out row whether it overlaps with training rows."""
    seen = {mark for row in train for mark in row.marks}
    return [not seen.isdisjoint(row.marks) for row in held_out]
