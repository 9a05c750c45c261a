# SPDX-License-Identifier: Apache-2.0
"""What the data steps hand to each other, and how they are counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pyfsb.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text and where it stood."""

    text: str
    source: str
    """File, relative to data.root."""
    line_number: int
    """First line of it in the file, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A line that is no document: it is counted, set aside and never silently dropped."""

    reason: str
    """Short name of what is wrong, such as not_utf8."""
    source: str
    """File, relative to data.root."""
    line_number: int
    """Line in the file, counted from 1."""
    raw: bytes
    """The line as it stands."""


@dataclass(slots=True)
class Counts:
    """Documents in, documents out and why the others went; `check` makes sure they add up."""

    num_read: int = 0
    num_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str) -> None:
        """Count one document that goes."""
        self.dropped[reason] += 1

    def check(self) -> None:
        """Make sure that what was read is what was kept plus what was dropped.

        Raises:
            DataError: A document was lost on the way.
        """
        if self.num_read != self.num_kept + self.dropped.total():
            raise DataError(
                f"{self.num_read} documents read, {self.num_kept} kept, dropped "
                f"{dict(self.dropped)}: the counts do not add up"
            )
