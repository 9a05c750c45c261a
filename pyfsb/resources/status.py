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
    READY = "Ready"
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


class Progress(ResourceSchema):
    """What the first rank reported last."""

    step: int | None = None
    """Optimizer steps taken."""
    total_steps: int | None = None
    """Steps in all."""
    percentage: int | None = None
    """Share of the work that is done, 0 to 100."""
    loss: str | None = None
    """Loss of the last step in nats per target; a text, because the API has no floats."""
    tokens_per_second: int | None = None
    """Tokens of all ranks together, padding not counted."""
    mfu: str | None = None
    """Share of the devices' peak FLOP/s that the model's own arithmetic uses; None on CPU."""
    eta_seconds: int | None = None
    """Estimated seconds to the end."""
    eta: str | None = None
    """The same for people, such as 2h05m."""
    task: str | None = None
    """Task that is being worked on, of an evaluation."""
    reported_at: str | None = None
    """When, RFC 3339."""


class GangStatus(BaseStatus):
    """What the kinds that start pods share."""

    model: str | None = None
    """Name of the model, for the printed table."""
    checkpoint: str | None = None
    """First weights, name@alias resolved: a later move of the alias does not touch this run."""
    progress: Progress | None = None
    """What the first rank reported last."""
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


class DataPreparationStatus(GangStatus):
    """Status of a DataPreparation."""


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
    served_checkpoint: str | None = None
    """Checkpoint that the gate is about: what a ServedModel serves."""
    served_digest: str | None = None
    """Digest of its record."""


class ServedModelStatus(BaseStatus):
    """Status of a ServedModel."""

    model: str | None = None
    """What is served, as it was asked for: name@alias, or the end of the checkpoint's URI."""
    checkpoint: str | None = None
    """Checkpoint that is served, aliases resolved."""
    digest: str | None = None
    """Digest of its record, where it is known."""
    version: int | None = None
    """Version in the model store, when it was named by alias."""
    url: str | None = None
    """Where it answers, inside the cluster."""
    replicas: int | None = None
    """Pods that are ready."""
