# SPDX-License-Identifier: Apache-2.0
"""What an evaluation task is: which files, which fields, which labels, which official form.

A task is one file in `tasks/` that defines `TASK`; nothing else has to know it. Never imports
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyfsb.config import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The file that an official board accepts."""

    input: str
    """Unlabelled rows, relative to data.root."""
    file_name: str
    """Name of the file to hand in."""
    source: str
    """Where its form is described."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One data set with one metric."""

    spec: TaskSpec
    """Name, family, fields and labels."""
    title: str
    """Chinese title."""
    version: str
    """Changes when the files or the scoring change."""
    train: str
    """Training rows, relative to data.root (or absolute)."""
    test: str
    """Labelled rows to score, relative to data.root (or absolute)."""
    source: str
    """Where the data come from."""
    licence: str
    """What their licence says."""
    label_titles: Mapping[str, str] = field(default_factory=dict)
    """Readable names of labels that are codes."""
    excluded: frozenset[str] = field(default_factory=frozenset)
    """Gold labels that mean "no label"; such rows are counted, not scored."""
    submission: Submission | None = None
    """Official form, where there is a board."""
    is_prepared: bool = False
    """True: the files were written by the data stage from the user's own rows."""
    is_mixture: bool = False
    """True: they are several sets, each in a folder of its own beside where the files would be."""

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.spec.name
