# SPDX-License-Identifier: Apache-2.0
"""Exact duplicates: texts that are equal after removing white space.

The first one stays. Holds 16 bytes a document; called by `prepare` and `labelled`.
"""

from __future__ import annotations

import hashlib


def text_key(*texts: str) -> bytes:
    """Return 16 bytes that are the same for texts equal but for white space.

    Source: our choice; BLAKE2b, 128 bits (a collision among 10^10 texts has odds below 10^-18).
    """
    joined = "\x1f".join("".join(text.split()) for text in texts)
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class SeenTexts:
    """A set of texts that were met."""

    def __init__(self) -> None:
        """Start with none."""
        self._keys: set[bytes] = set()

    def is_new(self, text: str) -> bool:
        """Say whether the text was not met before, and remember it."""
        key = text_key(text)
        if key in self._keys:
            return False
        self._keys.add(key)
        return True
