# SPDX-License-Identifier: Apache-2.0
"""From a run spec to the custom resources of its stages: names, manifests, inputs on storage.

Called by the cluster engine. Reads and writes storage for a user's own small files only; never
talks to a cluster.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pyfsb import storage
from pyfsb.config import RunSpec, Stage, stage_hash
from pyfsb.config.sections import MixtureSet
from pyfsb.errors import ConfigError, FsbError
from pyfsb.resources import (
    API_VERSION,
    DataPreparationResource,
    EvaluationResource,
    ServedModelResource,
    TrainingRunResource,
)
from pyfsb.resources.status import ResourceSchema
from pyfsb.schema import Json, digest, parse

KIND_OF: Final = {
    Stage.DATA: "DataPreparation",
    Stage.TRAINING: "TrainingRun",
    Stage.EVALUATION: "Evaluation",
    Stage.SERVING: "ServedModel",
}
"""Kind of the resource that carries a stage; the pages belong to the Evaluation."""
_CLASSES: Final[dict[str, type[ResourceSchema]]] = {
    "DataPreparation": DataPreparationResource,
    "TrainingRun": TrainingRunResource,
    "Evaluation": EvaluationResource,
    "ServedModel": ServedModelResource,
}
_NAME_LENGTH: Final = 32
"""Characters of the run's name in a resource's: with stage, hash and a pod's ending below 63."""
_INPUT_BYTES: Final = 256 * 2**20
"""Larger files of one's own are copied by hand, with a tool that shows how far it is."""
_REMOTE: Final = ("s3://", "pvc://")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Where and how widely a stage runs; the run spec says what it does."""

    namespace: str | None = None
    """None takes FSB_NAMESPACE, else the pod's or the kubeconfig's."""
    pool: str = "default"
    """Node pool of the chart."""
    nodes: int = 1
    """Pods of a training or an evaluation."""
    processes_per_node: int | None = None
    """None takes the pool's devices, else run.parallelism."""
    resources: Json = field(default_factory=dict)
    """What one pod asks for: cpu, memory, sharedMemory, devices."""
    pod: Json = field(default_factory=dict)
    """Selectors, tolerations, volumes … beside the pool's (`PodOverrides`); not for serving."""
    image: str | None = None
    """Image of the stage. None takes the chart's."""
    stops_with: Json | None = None
    """The workflow whose end ends the work: `workflow` and `uid`."""
    name: str | None = None
    """Name of the resource. None makes one from the run."""
    evaluation: str | None = None
    """Evaluation whose gate counts for serving. None takes the run's own."""
    blocked_limit_seconds: float | None = None
    """How long to wait for a resource that cannot go on. None waits for ever."""
    shows_logs: bool = False
    """Pass the first pod's log on while it runs."""


def read_options(stage: Stage, environment: Mapping[str, str]) -> ClusterOptions:
    """Return the options of a stage that the environment gives.

    FSB_NAMESPACE, FSB_POOL (one name, or `stage=name` and a name for the rest, by commas),
    FSB_NODES, FSB_PROCESSES_PER_NODE and FSB_BLOCKED_SECONDS, as `fsb run` sets them.

    Raises:
        ConfigError: One of them is not what it should be.
    """
    nodes = _whole_number(environment, "FSB_NODES")
    processes = _whole_number(environment, "FSB_PROCESSES_PER_NODE")
    limit = _whole_number(environment, "FSB_BLOCKED_SECONDS")
    is_gang = stage in (Stage.TRAINING, Stage.EVALUATION)
    return ClusterOptions(
        namespace=environment.get("FSB_NAMESPACE") or None,
        pool=_pool(stage, environment.get("FSB_POOL", "")),
        nodes=nodes if nodes and is_gang else 1,
        processes_per_node=processes if is_gang else None,
        blocked_limit_seconds=limit,
    )


def resource_name(spec: RunSpec, stage: Stage) -> str:
    """Return the name of a stage's resource: the same run finds it again.

    A ServedModel has the run's name alone, so that a later run of that name updates the service.
    """
    if stage is Stage.SERVING:
        return _dns(spec.name)
    content = digest([spec.output, stage_hash(spec, stage)]).removeprefix("sha256:")
    return f"{_dns(spec.name)}-{stage.value}-{content[:8]}"


def build_gang(spec: RunSpec, stage: Stage, options: ClusterOptions) -> Json:
    """Return the manifest of a DataPreparation, TrainingRun or Evaluation.

    Raises:
        ConfigError: An option is not what it should be; names it.
    """
    gang: Json = {
        "run": spec.model_dump(mode="json", exclude_none=True),
        "pool": options.pool,
        "nodes": options.nodes,
        "processesPerNode": options.processes_per_node,
        "resources": options.resources or None,
        "pod": options.pod or None,
    }
    return _finish(gang, stage, options, resource_name(spec, stage))


def build_served_model(
    spec: RunSpec, options: ClusterOptions, *, evaluation: str | None, checkpoint: str
) -> Json:
    """Return the manifest of a ServedModel.

    Args:
        spec: The run.
        options: Where it runs.
        evaluation: Evaluation of this cluster whose gate has passed. None: the run was evaluated
            elsewhere, and its report's gate has passed.
        checkpoint: What to serve then.
    """
    limits = spec.serving
    served: Json = {
        "evaluation": evaluation,
        "model": None if evaluation else checkpoint,
        "gate": "required" if evaluation else "off",
        "pool": options.pool,
        "resources": options.resources or None,
        "serving": {
            "maxBatchRows": limits.max_batch_rows,
            "maxRequestBytes": limits.max_request_bytes,
            "maxConcurrentRequests": limits.max_concurrent_requests,
            "requestTimeoutSeconds": math.ceil(limits.request_timeout_seconds),
        },
    }
    return _finish(served, Stage.SERVING, options, resource_name(spec, Stage.SERVING))


def check_places(spec: RunSpec) -> None:
    """Check that pods and this machine can both reach what the spec names.

    Args:
        spec: The run, name@alias resolved.

    Raises:
        ConfigError: A place is on this machine's disk, or on a volume that only pods can read.
    """
    if spec.output.startswith("pvc://"):
        raise ConfigError(
            f"output = {spec.output!r}: this machine cannot read a volume of the cluster, where "
            "the records would be; use s3://, or apply the resources with kubectl"
        )
    if not storage.is_s3(spec.output):
        raise ConfigError(
            f"output = {spec.output!r}: pods cannot write to this machine's disk; expected "
            "s3://bucket/folder, for instance --set output=s3://bucket/" + spec.name
        )
    _check_patterns(spec)
    for part in spec.data.blend:
        if not part.uri.startswith(_REMOTE):
            raise ConfigError(_not_copied(f"data.blend {part.name}.uri", part.uri))
    for key, place in (
        ("model.checkpoint", spec.model.checkpoint),
        ("data.tokenizer", spec.data.tokenizer),
    ):
        if place and not storage.is_hub(place) and not place.startswith(_REMOTE):
            raise ConfigError(_not_copied(key, place))


def _check_patterns(spec: RunSpec) -> None:
    """Check where the files lie that are read below `data.root`."""
    reads_root = bool(spec.data.corpus or spec.data.rows or spec.evaluation.tasks)
    if reads_root and not spec.data.root.startswith(_REMOTE):
        raise ConfigError(_not_copied("data.root", spec.data.root))
    for key, patterns in (("corpus", spec.data.corpus), ("rows", spec.data.rows)):
        for pattern in patterns:
            if pattern.startswith("/"):
                raise ConfigError(_not_copied(f"data.{key}", pattern.rpartition("/")[0] or "/"))


def upload_inputs(spec: RunSpec) -> RunSpec:
    """Copy the user's own rows and vocabulary from this machine into the output.

    Their place follows from their content, so the same file is sent once.

    Returns:
        The spec with the places on storage.

    Raises:
        ConfigError: A file is too large to be sent along.
        DataError: There is no such file.
    """
    data = spec.data
    paths: dict[str, Any] = {
        key: _upload(spec.output, f"data.{key}", getattr(data, key)) for key in ("train", "test")
    }
    file = _upload(spec.output, "data.vocabulary.file", data.vocabulary.file)
    paths["vocabulary"] = data.vocabulary.model_copy(update={"file": file})
    if data.mixture:
        sets = tuple(_upload_set(spec, part) for part in data.mixture.sets)
        paths["mixture"] = data.mixture.model_copy(update={"sets": sets})
    if not data.root.startswith(_REMOTE):  # nothing is read from it, see `check_places`
        paths["root"] = storage.join(spec.output, "inputs")
    return spec.model_copy(update={"data": data.model_copy(update=paths)})


def _upload_set(spec: RunSpec, part: MixtureSet) -> MixtureSet:
    """Return a set of a mixture with the files of this machine's disk on storage."""
    root, places = spec.data.root, {"train": part.train, "test": part.test}
    for key, path in places.items():
        is_below_remote = root.startswith(_REMOTE) and not str(path).startswith("/")
        if path and not path.startswith(_REMOTE) and not is_below_remote:
            setting = f"data.mixture, set {part.name}: {key}"
            places[key] = _upload(spec.output, setting, storage.resolve(path, root))
    return part.model_copy(update=places)


def _upload(output: str, key: str, path: str | None) -> str | None:
    if path is None or path.startswith(_REMOTE):
        return path
    if storage.size(path) > _INPUT_BYTES:
        raise ConfigError(_not_copied(key, path))
    content = storage.read_bytes(path)
    name = storage.normalise(path).rpartition("/")[2]
    folder = hashlib.sha256(content).hexdigest()[:16]
    uri = storage.join(output, "inputs", folder, name)
    if not storage.exists(uri):
        storage.write_bytes(uri, content)
    return uri


def _not_copied(key: str, path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2] or "data"
    return (
        f"{key} = {path!r}: pods cannot read this machine's disk; copy it to the object store, "
        f"for instance `aws s3 cp --recursive {path} s3://bucket/{name}` or `rclone copy {path} "
        f"REMOTE:bucket/{name}`, then --set {key}=s3://bucket/{name}"
    )


def _finish(spec: Json, stage: Stage, options: ClusterOptions, name: str) -> Json:
    """Return the whole manifest, checked; what is not said is left to the cluster's defaults."""
    spec |= {"image": options.image, "stopsWith": options.stops_with}
    kind = KIND_OF[stage]
    manifest: Json = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": options.name or name},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }
    try:
        parse(_CLASSES[kind], manifest, source=kind)
    except FsbError as exc:
        raise ConfigError(f"stage {stage}: {exc}") from None
    return manifest


def _dns(name: str) -> str:
    """Return a run's name as the beginning of a resource's; long ones end with their hash."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"
    plain = plain if plain[0].isalpha() else f"run-{plain}"
    if len(plain) <= _NAME_LENGTH:
        return plain
    ending = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{plain[: _NAME_LENGTH - 7].rstrip('-')}-{ending}"


def _whole_number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name}={text!r}; expected a whole number of at least 1")
    return int(text)


def _pool(stage: Stage, text: str) -> str:
    """Return the pool of a stage from `training=a100,default` and the like."""
    pools = {"": "default"}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, separator, name = part.rpartition("=")
        if separator and (key not in (s.value for s in KIND_OF) or not name):
            known = ", ".join(stage.value for stage in KIND_OF)
            raise ConfigError(f"pool {part!r}: expected NAME or STAGE=NAME; stages are {known}")
        pools[key] = name
    return pools.get(stage.value, pools[""])
