# SPDX-License-Identifier: Apache-2.0
"""Which held-out rows the training rows give away.

A row overlaps when its texts, white space aside, stand in a training row (of a pair also in the
other order), or when it was generated from a template that training rows were generated from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyfsb.data.dedup import text_key
from pyfsb.data.labelled import Example


def find_overlap(train: Iterable[Example], held_out: Sequence[Example]) -> list[bool]:
    """Return for each held-out row whether it overlaps with training rows."""
    keys: set[bytes] = set()
    templates: set[str] = set()
    for row in train:
        keys.add(row.key)
        if row.text_pair is not None:
            keys.add(text_key(row.text_pair, row.text))
        if row.template is not None:
            templates.add(row.template)
    return [row.key in keys or row.template in templates for row in held_out]
