# SPDX-License-Identifier: Apache-2.0
"""Which documents stay: each filter gives the reason to drop a document, or None."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Filter: TypeAlias = Callable[[str], str | None]


def drop_short(min_characters: int) -> Filter:
    """Return a filter that drops texts with fewer characters (reason too_short; empty for none)."""

    def reason(text: str) -> str | None:
        if not text:
            return "empty"
        return "too_short" if len(text) < min_characters else None

    return reason
