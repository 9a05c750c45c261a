# SPDX-License-Identifier: Apache-2.0
"""The two documents of a model store: a version, and an alias with its history."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pyfsb.records import GateResult, Parent, Score
from pyfsb.schema import Schema

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]


class VersionScore(Schema):
    """One score of a version in short; the whole one is in the report."""

    task: str
    """Name of the task."""
    runner: str
    """`finetune` or `ngram`."""
    metric: str
    """What `value` is."""
    value: float
    """Share of right rows of the first seed."""
    interval: tuple[float, float]
    """Its 95 % interval."""
    majority_value: float
    """Score of the majority baseline on the same rows."""
    num_rows: int
    """Rows it is about."""

    @classmethod
    def from_score(cls, score: Score) -> VersionScore:
        """Shorten a score of a report."""
        return cls(
            task=score.task,
            runner=score.runner,
            metric=score.metric,
            value=score.seed_values[0],
            interval=score.interval,
            majority_value=score.majority_value,
            num_rows=score.num_rows,
        )


class ModelVersion(Schema):
    """One version of a model; written once."""

    schema_version: Literal[1] = 1
    """Raised when a field changes its meaning."""
    name: Word
    """Name in the store."""
    number: Annotated[int, Field(ge=1)]
    """1, 2, 3 …"""
    checkpoint: str
    """Folder or s3:// prefix of the weights."""
    digest: str
    """Digest of the checkpoint's record; of a folder without one, of its files."""
    model: str | None = None
    """Registry entry, where the checkpoint has a record."""
    task: str | None = None
    """Task it was fine-tuned for."""
    scores: tuple[VersionScore, ...] = ()
    """What the report says about it."""
    gate: GateResult | None = None
    """The report's decision about serving it. None: there is none."""
    evaluation: str | None = None
    """Folder of the report."""
    evaluation_digest: str | None = None
    """Digest of the report."""
    parents: tuple[Parent, ...] = ()
    """What the checkpoint was made from, every place absolute."""
    created_at: str
    """UTC time, ISO 8601."""
    note: str = ""
    """The registrar's own words."""

    @property
    def reference(self) -> str:
        """How it is named for ever: NAME@NUMBER."""
        return f"{self.name}@{self.number}"


class Move(Schema):
    """One move of an alias."""

    id: str
    """Unique: tells a writer that was cut off whether its move was kept."""
    action: Literal["promote", "rollback"]
    """A promotion puts a version on top, a rollback takes the top one away."""
    version: int
    """Version that the alias stands for since then."""
    moved_at: str
    """UTC time, ISO 8601."""
    ignored_gate: bool = False
    """True: promoted although its gate had not passed, or it had none."""
    note: str = ""
    """The mover's own words."""


class Alias(Schema):
    """A name for a version that may move; the history is only ever added to."""

    schema_version: Literal[1] = 1
    """Raised when a field changes its meaning."""
    name: Word
    """Name of the model."""
    alias: Word
    """production, staging …"""
    moves: tuple[Move, ...] = ()
    """Every move, oldest first."""

    @property
    def stack(self) -> tuple[int, ...]:
        """Versions that a rollback can come back to, the present one last."""
        found: list[int] = []
        for move in self.moves:
            if move.action == "promote":
                found.append(move.version)
            else:
                found.pop()
        return tuple(found)

    @property
    def version(self) -> int:
        """Version that it stands for now."""
        return self.moves[-1].version
