# SPDX-License-Identifier: Apache-2.0
"""The kinds of custom resources: what a user writes into `spec`.

`spec.run` is the run spec that `fsb run` takes, unchanged; beside it stands only what a cluster
adds: how many nodes of which pool, how often to restart, which secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from pyfsb.config import RunSpec
from pyfsb.resources.status import (
    BaseStatus,
    EvaluationStatus,
    ResourceSchema,
    TrainingRunStatus,
)

GROUP: Final = "fengshenbang.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "fengshenbang.io/v1alpha1"

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]


class RestartPolicy(ResourceSchema):
    """How often a gang may fail before the run has failed."""

    limit: Annotated[int, Field(ge=0, le=1000)] = 5
    """Restarts within the window; 0 never restarts."""
    window_seconds: Annotated[int, Field(ge=60)] = 86400
    """Older restarts are forgotten: a month-long run may lose a node a day."""


class Stopper(ResourceSchema):
    """The workflow that started a run and takes it with it when it is stopped."""

    workflow: str
    """Name of the Argo Workflow in the same namespace."""
    uid: str
    """Its uid: a later one with the same name does not count."""


class GangResources(ResourceSchema):
    """What one pod asks for; None takes the pool's."""

    cpu: Quantity | None = None
    """CPU cores."""
    memory: Quantity | None = None
    """Memory, the shared-memory volume included."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, which data loaders and NCCL use."""
    devices: Annotated[int, Field(ge=0, le=64)] | None = None
    """Accelerators of the pool's kind; also the processes of a node where there are any."""


class GangSpec(ResourceSchema):
    """What the kinds that start pods share."""

    run: RunSpec
    """The run spec; every path in it is s3:// or pvc://."""
    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Pods: one Master and the rest Workers."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training processes of a pod. None takes the pool's devices, else run.parallelism."""
    pool: DnsLabel = "default"
    """Node pool of the chart: what kind of nodes, their labels, taints, devices and network."""
    resources: GangResources = GangResources()
    """What one pod asks for."""
    image: str | None = None
    """Image of the stage. None takes the chart's."""
    suspend: bool = False
    """True stops the pods and keeps the saved states; false goes on from the last one."""
    restart: RestartPolicy = RestartPolicy()
    """How often the whole gang may restart."""
    deadline_seconds: Annotated[int, Field(ge=60)] | None = None
    """Seconds from the first start after which the work is stopped. None never."""
    credentials_secret: DnsLabel | None = None
    """Secret with the S3 keys as environment variables. None takes the chart's."""
    service_account: DnsLabel | None = None
    """Service account of the pods. None takes the chart's, which may do nothing."""
    priority_class: DnsLabel | None = None
    """Priority class of the pods. None takes the pool's."""
    stops_with: Stopper | None = None
    """The workflow whose end ends this work."""


class TrainingRunSpec(GangSpec):
    """Pretraining from prepared shards to a checkpoint, on several nodes."""


class EvaluationSpec(GangSpec):
    """Fine-tuning and scoring on every task of the run spec, of the model it trains or names."""


class _Metadata(ResourceSchema):
    name: DnsLabel
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Resource(ResourceSchema):
    api_version: Literal["fengshenbang.io/v1alpha1"] = API_VERSION
    metadata: _Metadata


class TrainingRunResource(_Resource):
    """A TrainingRun as it is applied."""

    kind: Literal["TrainingRun"] = "TrainingRun"
    spec: TrainingRunSpec


class EvaluationResource(_Resource):
    """An Evaluation as it is applied."""

    kind: Literal["Evaluation"] = "Evaluation"
    spec: EvaluationSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind: its names, classes and table."""

    kind: str
    plural: str
    short: str
    spec: type[ResourceSchema]
    status: type[BaseStatus]
    columns: tuple[tuple[str, str, str], ...]
    """Printed columns: title, type, JSON path."""
    rules: tuple[tuple[str, str], ...] = ()
    """CEL rules on `spec`: expression and message."""


_GANG_COLUMNS: Final = (
    ("Phase", "string", ".status.phase"),
    ("Model", "string", ".status.model"),
    ("Restarts", "integer", ".status.restarts"),
    ("Age", "date", ".metadata.creationTimestamp"),
)
_GANG_RULES: Final = (
    (
        "self.run.output.startsWith('s3://') || self.run.output.startsWith('pvc://')",
        "run.output must start with s3:// or pvc://: pods share no disk",
    ),
    ("self.run == oldSelf.run", "run is immutable: make another resource for another run"),
)
KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        kind="TrainingRun", plural="trainingruns", short="trun", spec=TrainingRunSpec,
        status=TrainingRunStatus, columns=_GANG_COLUMNS, rules=_GANG_RULES,
    ),
    Kind(
        kind="Evaluation", plural="evaluations", short="eval", spec=EvaluationSpec,
        status=EvaluationStatus,
        columns=(
            *_GANG_COLUMNS[:2], ("Gate", "boolean", ".status.gatePassed"), *_GANG_COLUMNS[2:],
        ),
        rules=_GANG_RULES,
    ),
)  # fmt: skip
