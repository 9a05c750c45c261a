# SPDX-License-Identifier: Apache-2.0
"""The kinds of custom resources: what a user writes into `spec`.

`spec.run` is the run spec that `fsb run` takes, unchanged; beside it stands only what a cluster
adds: how many nodes of which pool, how often to restart, which secret. A ServedModel has no run:
it names a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pyfsb.config import RunSpec
from pyfsb.resources.status import (
    BaseStatus,
    DataPreparationStatus,
    EvaluationStatus,
    ResourceSchema,
    ServedModelStatus,
    TrainingRunStatus,
)
from pyfsb.schema import Json

GROUP: Final = "fengshenbang.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "fengshenbang.io/v1alpha1"

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
GANG_NAME_LENGTH: Final = 52
"""Characters of a gang's name at most: its last pod is NAME-worker-510, a DNS label of 63."""
SERVED_NAME_LENGTH: Final = 53
"""Characters of a ServedModel's name at most: its Service is NAME-predictor."""
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


class PodOverrides(ResourceSchema):
    """What a pod gets beside what its pool gives it, in the words of a pod spec."""

    node_selector: dict[str, str] = {}
    """Labels that a node must have, beside the pool's."""
    tolerations: tuple[Json, ...] = ()
    """Taints that are tolerated, beside the pool's."""
    affinity: Json | None = None
    """Affinity of the pods."""
    volumes: tuple[Json, ...] = ()
    """Further volumes."""
    volume_mounts: tuple[Json, ...] = ()
    """Where they are mounted."""
    env: tuple[Json, ...] = ()
    """Further environment variables; a name given here wins."""


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
    pod: PodOverrides = PodOverrides()
    """Selectors, tolerations, volumes and environment beside the pool's."""
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


class DataPreparationSpec(GangSpec):
    """Raw text and labelled rows to shards and records, in one pod."""


class TrainingRunSpec(GangSpec):
    """Pretraining from prepared shards to a checkpoint, on several nodes."""


class EvaluationSpec(GangSpec):
    """Fine-tuning and scoring on every task of the run spec, of the model it trains or names.

    The model is `run.model.checkpoint` (s3://, pvc:// or name@alias of the model store), or the one
    that the run's training left in its output.
    """


class ScaleSpec(ResourceSchema):
    """How many copies answer requests."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Copies at least."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Copies at most."""
    target_cpu_percent: Annotated[int, Field(ge=1, le=100)] = 70
    """Mean use of the requested CPU that is aimed at."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"maxReplicas {self.max_replicas} < minReplicas {self.min_replicas}")
        return self


class ServingLimits(ResourceSchema):
    """Bounds of the server; None takes the server's own default (`ServingSpec`)."""

    max_batch_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows of one request at most."""
    max_request_bytes: Annotated[int, Field(ge=1)] | None = None
    """Bytes of one request body at most."""
    max_concurrent_requests: Annotated[int, Field(ge=1)] | None = None
    """Requests in work or waiting at most, of one copy."""
    request_timeout_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    """A request not answered within this time ends with 504."""


class ServedModelSpec(ResourceSchema):
    """A checkpoint behind an HTTP endpoint."""

    model: str | None = None
    """Checkpoint: s3://, pvc:// or name@alias. None takes the one that the Evaluation's gate is
    about."""
    evaluation: DnsLabel | None = None
    """Evaluation in this namespace whose gate must have passed. None: the gate of the version that
    name@alias names counts, or gate is off."""
    gate: Literal["required", "off"] = "required"
    """off serves without an Evaluation's consent."""
    scale: ScaleSpec = ScaleSpec()
    """Copies."""
    serving: ServingLimits = ServingLimits()
    """Bounds of the server."""
    pool: DnsLabel = "default"
    """Node pool of the chart."""
    resources: GangResources = GangResources()
    """What one copy asks for."""
    image: str | None = None
    """Image of the server. None takes the chart's."""
    service_account: DnsLabel | None = None
    """Service account of the pods. None takes the chart's, which may do nothing."""
    stops_with: Stopper | None = None
    """The workflow whose end ends this service; None keeps it, as a pipeline's users expect."""


class _Metadata(ResourceSchema):
    name: DnsLabel
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Resource(ResourceSchema):
    api_version: Literal["fengshenbang.io/v1alpha1"] = API_VERSION
    metadata: _Metadata


class DataPreparationResource(_Resource):
    """A DataPreparation as it is applied."""

    kind: Literal["DataPreparation"] = "DataPreparation"
    spec: DataPreparationSpec


class TrainingRunResource(_Resource):
    """A TrainingRun as it is applied."""

    kind: Literal["TrainingRun"] = "TrainingRun"
    spec: TrainingRunSpec


class EvaluationResource(_Resource):
    """An Evaluation as it is applied."""

    kind: Literal["Evaluation"] = "Evaluation"
    spec: EvaluationSpec


class ServedModelResource(_Resource):
    """A ServedModel as it is applied."""

    kind: Literal["ServedModel"] = "ServedModel"
    spec: ServedModelSpec


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
    name_length: int = GANG_NAME_LENGTH
    """Characters of a name at most: what is made from it has longer ones."""


_AGE: Final = ("Age", "date", ".metadata.creationTimestamp")
_GANG_COLUMNS: Final = (
    ("Phase", "string", ".status.phase"),
    ("Model", "string", ".status.model"),
)
_PROGRESS_COLUMNS: Final = (
    ("Step", "integer", ".status.progress.step"),
    ("Total", "integer", ".status.progress.totalSteps"),
    ("Loss", "string", ".status.progress.loss"),
    ("Tokens/s", "integer", ".status.progress.tokensPerSecond"),
    ("ETA", "string", ".status.progress.eta"),
    ("Restarts", "integer", ".status.restarts"),
    _AGE,
)
_GANG_RULES: Final = (
    (
        "self.run.output.startsWith('s3://') || self.run.output.startsWith('pvc://')",
        "run.output must start with s3:// or pvc://: pods share no disk",
    ),
    ("self.run == oldSelf.run", "run is immutable: make another resource for another run"),
)
_ONE_NODE: Final = ("self.nodes == 1", "nodes must be 1: data are prepared in one pod")
_SERVED_RULES: Final = (
    (
        "self.gate == 'off' || has(self.evaluation) || (has(self.model) && "
        "self.model.matches('^[A-Za-z0-9._-]+@[A-Za-z0-9._-]+$'))",
        "evaluation is not set: name one, give a name@alias whose version passed its gate, or set "
        "gate to off",
    ),
    ("has(self.model) || has(self.evaluation)", "set model or evaluation: nothing to serve"),
    (
        "self.scale.minReplicas <= self.scale.maxReplicas",
        "scale.maxReplicas is below scale.minReplicas",
    ),
)
KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        kind="DataPreparation", plural="datapreparations", short="dprep",
        spec=DataPreparationSpec, status=DataPreparationStatus,
        columns=(*_GANG_COLUMNS[:1], *_PROGRESS_COLUMNS[-2:]), rules=(*_GANG_RULES, _ONE_NODE),
    ),
    Kind(
        kind="TrainingRun", plural="trainingruns", short="trun", spec=TrainingRunSpec,
        status=TrainingRunStatus, columns=(*_GANG_COLUMNS, *_PROGRESS_COLUMNS), rules=_GANG_RULES,
    ),
    Kind(
        kind="Evaluation", plural="evaluations", short="eval", spec=EvaluationSpec,
        status=EvaluationStatus,
        columns=(*_GANG_COLUMNS, ("Gate", "boolean", ".status.gatePassed"), *_PROGRESS_COLUMNS),
        rules=_GANG_RULES,
    ),
    Kind(
        kind="ServedModel", plural="servedmodels", short="smodel", spec=ServedModelSpec,
        status=ServedModelStatus,
        columns=(
            ("Phase", "string", ".status.phase"),
            ("Model", "string", ".status.model"),
            ("Ready", "integer", ".status.replicas"),
            ("URL", "string", ".status.url"),
            _AGE,
        ),
        rules=_SERVED_RULES, name_length=SERVED_NAME_LENGTH,
    ),
)  # fmt: skip
