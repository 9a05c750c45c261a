# SPDX-License-Identifier: Apache-2.0
"""What the operator reports about each custom resource, in `status`.

Conditions follow Kubernetes' meaning; `phase` is one word for people. Every field may be missing:
a status is filled as the work goes on.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from pyfsb.schema import Schema


class ResourceSchema(Schema):
    """A part of a custom resource: names in camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    def to_manifest(self) -> dict[str, object]:
        """Return plain JSON values under their names on the wire, nothing for None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Phase(StrEnum):
    """Where a resource stands, in one word."""

    PENDING = "Pending"
    INVALID = "Invalid"
    BLOCKED = "Blocked"
    SUSPENDED = "Suspended"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Condition(ResourceSchema):
    """One condition, as every Kubernetes resource has them."""

    type: str
    """What is true or not: Valid, Running, Succeeded."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is."""
    reason: str
    """Why, in one CamelCase word."""
    message: str = ""
    """Why, in a sentence with the values and what would be right."""
    last_transition_time: str
    """When `status` changed, RFC 3339."""
    observed_generation: int | None = None
    """Generation of the spec that was looked at."""


class BaseStatus(ResourceSchema):
    """What every kind shares."""

    phase: Phase | None = None
    """Where it stands."""
    conditions: tuple[Condition, ...] = ()
    """Details of it."""
    observed_generation: int | None = None
    """Generation of the spec that was looked at last."""
    message: str | None = None
    """The newest news in a sentence."""


class GangStatus(BaseStatus):
    """What the kinds that start pods share."""

    model: str | None = None
    """Name of the model, for the printed table."""
    start_time: str | None = None
    """When the first gang started, RFC 3339."""
    completion_time: str | None = None
    """When the work ended, RFC 3339."""
    restarts: int | None = None
    """Restarts of the whole gang so far."""
    restart_times: tuple[str, ...] = ()
    """Those within the budget's window, RFC 3339."""
    pod_uids: tuple[str, ...] = ()
    """Pods of the present gang, to notice that one was replaced."""
    record: str | None = None
    """Folder of the result's record, once there is one."""
    digest: str | None = None
    """Digest of that record."""


class TrainingRunStatus(GangStatus):
    """Status of a TrainingRun."""


class ScoreStatus(ResourceSchema):
    """One score in short."""

    task: str
    """Name of the task."""
    runner: str
    """finetune or ngram."""
    value: str
    """Share of right rows of the first seed."""
    interval: str
    """Its 95 % interval."""
    majority: str
    """Score of the majority baseline on the same rows."""
    num_rows: int
    """Rows it is about."""


class EvaluationStatus(GangStatus):
    """Status of an Evaluation."""

    scores: tuple[ScoreStatus, ...] = ()
    """Every score."""
    gate_passed: bool | None = None
    """Whether the model may be served."""
    gate_reason: str | None = None
    """Why."""
