# SPDX-License-Identifier: Apache-2.0
"""A gang: pods that start together, find each other and end together, in one typed description.

`plan_gang` makes it from a custom resource and the chart's settings; the builders render it, as a
PyTorchJob today. Pure: knows no cluster and no kind of job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from operators.settings import NodePool, OperatorSettings
from pyfsb.config import RunSpec, Stage
from pyfsb.errors import ConfigError
from pyfsb.registry import find_entry
from pyfsb.resources.kinds import GangSpec
from pyfsb.schema import to_yaml

GRACE_SECONDS: Final = 60
"""Seconds between SIGTERM and SIGKILL: the ranks have 25 to save, torchrun some to end."""
SPEC_PATH: Final = "/etc/fengshenbang/spec.yaml"
CONTAINER_UID: Final = 65532
_MODULES: Final = {Stage.TRAINING: "pyfsb.training", Stage.EVALUATION: "pyfsb.evaluation"}
_PVC: Final = "pvc://"
_CLAIM_FOLDER: Final = "/mnt/claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A ReadWriteMany volume that a URI of the run lies on."""

    name: str
    path: str
    """Where it is mounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """Everything about the pods of one piece of work."""

    name: str
    namespace: str
    num_pods: int
    """One master and the rest workers."""
    processes_per_pod: int
    image: str
    command: tuple[str, ...]
    spec_text: str
    """Resolved run spec, YAML; mounted at `SPEC_PATH`."""
    environment: Mapping[str, str]
    credentials_secret: str | None
    limits: Mapping[str, str]
    """Requests are the same: pods of the Guaranteed class keep their cores and memory."""
    shared_memory: str
    claims: tuple[Claim, ...]
    pool: NodePool
    service_account: str
    priority_class: str | None

    @property
    def spec_name(self) -> str:
        """Name of the ConfigMap with the spec: another text is another name."""
        digest = hashlib.sha256(self.spec_text.encode()).hexdigest()[:10]
        return f"{self.name}-{digest}"


def plan_gang(
    *, name: str, namespace: str, stage: Stage, spec: GangSpec, settings: OperatorSettings
) -> Gang:
    """Return the gang of a TrainingRun or Evaluation.

    Raises:
        ConfigError: The run cannot be carried by pods: a path on a laptop's disk, a wrong task.
        UnknownNameError: The pool or the model is unknown.
    """
    pool = settings.pool(spec.pool)
    find_entry(spec.run.model.name)
    asked = spec.resources
    devices = pool.devices_per_node if asked.devices is None else asked.devices
    if devices and not pool.device_resource:
        raise ConfigError(
            f"resources.devices = {devices}: pool {spec.pool!r} has no accelerators; choose "
            "another pool or leave it out"
        )
    processes = spec.processes_per_node or devices or spec.run.parallelism.num_processes
    limits = {"cpu": asked.cpu or pool.cpu, "memory": asked.memory or pool.memory}
    if devices:
        limits[str(pool.device_resource)] = str(devices)
    run, claims = _place_on_claims(spec.run)
    is_training = stage is Stage.TRAINING
    return Gang(
        name=name,
        namespace=namespace,
        num_pods=spec.nodes,
        processes_per_pod=processes,
        image=spec.image or (settings.images.train if is_training else settings.images.eval),
        command=("python", "-m", _MODULES[stage], "--spec", SPEC_PATH),
        spec_text=to_yaml(_for_pods(run, processes).to_json()),
        environment={**_ENVIRONMENT, **settings.environment, **pool.environment},
        credentials_secret=spec.credentials_secret or settings.credentials_secret,
        limits={**limits, **pool.extra_resources},
        shared_memory=asked.shared_memory or pool.shared_memory,
        claims=claims,
        pool=pool,
        service_account=spec.service_account or settings.service_account,
        priority_class=spec.priority_class or pool.priority_class,
    )


_ENVIRONMENT: Final = {
    "FSB_LOG_FORMAT": "json",
    "FSB_TERMINATION_LOG": "/dev/termination-log",
    "HOME": "/tmp",  # noqa: S108 - an emptyDir: the root file system is read-only
    "FSB_CACHE": "/tmp/fsb",  # noqa: S108
    "PYTHONUNBUFFERED": "1",
}


def _for_pods(run: RunSpec, processes: int) -> RunSpec:
    parallelism = run.parallelism.model_copy(update={"num_processes": processes})
    return run.model_copy(update={"parallelism": parallelism})


def _place_on_claims(run: RunSpec) -> tuple[RunSpec, tuple[Claim, ...]]:
    """Return the run with `pvc://claim/path` as mounted paths, and the claims.

    Raises:
        ConfigError: A path is neither s3:// nor pvc://.
    """
    claims: dict[str, Claim] = {}

    def place(uri: str | None, key: str) -> str | None:
        if uri is None or uri.startswith("s3://"):
            return uri
        if not uri.startswith(_PVC):
            raise ConfigError(
                f"run.{key} = {uri!r}: pods share no disk; expected s3://bucket/folder or "
                "pvc://claim/folder"
            )
        claim, _, path = uri.removeprefix(_PVC).partition("/")
        claims[claim] = Claim(name=claim, path=f"{_CLAIM_FOLDER}/{claim}")
        return f"{_CLAIM_FOLDER}/{claim}/{path}".rstrip("/")

    data = run.data.model_copy(
        update={
            "root": place(run.data.root, "data.root"),
            "train": place(run.data.train, "data.train"),
            "test": place(run.data.test, "data.test"),
        }
    )
    model = run.model.model_copy(
        update={"checkpoint": place(run.model.checkpoint, "model.checkpoint")}
    )
    output = place(run.output, "output")
    placed = run.model_copy(update={"output": output, "data": data, "model": model})
    return placed, tuple(claims.values())
