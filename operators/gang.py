# SPDX-License-Identifier: Apache-2.0
"""A gang: pods that start together, find each other and end together, in one typed description.

`plan_gang` makes it from a custom resource and the chart's settings; the builders render it, as a
PyTorchJob today. Pure: knows no cluster and no kind of job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from operators.places import Claim, Placing
from operators.quantities import to_number
from operators.settings import NodePool, OperatorSettings
from pyfsb.config import RunSpec, Stage
from pyfsb.errors import ConfigError
from pyfsb.registry import find_model
from pyfsb.resources.kinds import GangSpec
from pyfsb.schema import Json, to_yaml

GRACE_SECONDS: Final = 60
"""Seconds between SIGTERM and SIGKILL: the ranks have 25 to save, torchrun some to end."""
SPEC_PATH: Final = "/etc/fengshenbang/spec.yaml"
CONTAINER_UID: Final = 65532
STAGES: Final = {
    "DataPreparation": Stage.DATA,
    "TrainingRun": Stage.TRAINING,
    "Evaluation": Stage.EVALUATION,
}
"""Stage that the gang of a kind runs."""
_MODULES: Final = {
    Stage.DATA: "pyfsb.data",
    Stage.TRAINING: "pyfsb.training",
    # The evaluation, then on its first pod the pages of the run: they are no gang of their own.
    Stage.EVALUATION: "pyfsb.leaderboard.evaluating",
}
_ENVIRONMENT: Final = {
    "FSB_LOG_FORMAT": "json",
    "FSB_TERMINATION_LOG": "/dev/termination-log",
    "HOME": "/tmp",  # noqa: S108 - an emptyDir: the root file system is read-only
    "FSB_CACHE": "/tmp/fsb",  # noqa: S108
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """Everything about the pods of one piece of work."""

    kind: str
    """Kind of the custom resource that it is for."""
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
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have: the pool's and the resource's own."""
    tolerations: tuple[Json, ...] = ()
    """Taints that are tolerated: the pool's and the resource's own."""
    affinity: Json | None = None
    """Affinity of the pods, in the words of a pod spec."""
    extra_volumes: tuple[Json, ...] = ()
    """Volumes of the resource's own."""
    extra_mounts: tuple[Json, ...] = ()
    """Where they are mounted."""
    extra_env: tuple[Json, ...] = ()
    """Environment variables of the resource's own; a name given here wins."""

    @property
    def spec_name(self) -> str:
        """Name of the ConfigMap with the spec: another text is another name."""
        digest = hashlib.sha256(self.spec_text.encode()).hexdigest()[:10]
        return f"{self.name}-{digest}"


def plan_gang(
    *, kind: str, name: str, namespace: str, spec: GangSpec, settings: OperatorSettings
) -> Gang:
    """Return the gang of a DataPreparation, TrainingRun or Evaluation.

    Args:
        kind: Kind of the resource.
        name: Its name, which the gang's job gets too.
        namespace: Its namespace.
        spec: What it asks for, name@alias resolved.
        settings: The chart's settings.

    Raises:
        ConfigError: The run cannot be carried by pods: a path on a laptop's disk, no devices.
        UnknownNameError: The pool or the model is unknown.
    """
    pool = settings.pool(spec.pool)
    find_model(spec.run.model.name)
    stage, asked = STAGES[kind], spec.resources
    devices = _count_devices(spec, pool, stage)
    limits = {"cpu": asked.cpu or pool.cpu, "memory": asked.memory or pool.memory}
    processes = spec.processes_per_node or devices or spec.run.parallelism.num_processes
    if stage is Stage.DATA:
        processes = 1
    if devices:
        limits[str(pool.device_resource)] = str(devices)
    # Text is prepared on any node; a network of accelerators is asked for with them only.
    extra = pool.extra_resources if devices or not pool.device_resource else {}
    placing = Placing()
    run = _for_pods(placing.place_run(spec.run), stage, processes, limits["cpu"])
    stores = _stores(settings, placing)
    images = {Stage.DATA: settings.images.data, Stage.TRAINING: settings.images.train}
    return Gang(
        kind=kind,
        name=name,
        namespace=namespace,
        num_pods=spec.nodes,
        processes_per_pod=processes,
        image=spec.image or images.get(stage, settings.images.eval),
        command=("python3", "-m", _MODULES[stage], "--spec", SPEC_PATH),
        spec_text=to_yaml(run.to_json()),
        environment={**_ENVIRONMENT, **stores, **settings.environment, **pool.environment},
        credentials_secret=spec.credentials_secret or settings.credentials_secret,
        limits={**limits, **extra},
        shared_memory=asked.shared_memory or pool.shared_memory,
        claims=placing.claims,
        pool=pool,
        service_account=spec.service_account or settings.service_account,
        priority_class=spec.priority_class or pool.priority_class,
        node_selector={**pool.node_selector, **spec.pod.node_selector},
        tolerations=(*pool.tolerations, *spec.pod.tolerations),
        affinity=spec.pod.affinity,
        extra_volumes=spec.pod.volumes,
        extra_mounts=spec.pod.volume_mounts,
        extra_env=spec.pod.env,
    )


def _count_devices(spec: GangSpec, pool: NodePool, stage: Stage) -> int:
    """Return the accelerators of a pod; text is prepared without any unless they are asked for."""
    asked = spec.resources.devices
    if asked and not pool.device_resource:
        raise ConfigError(
            f"resources.devices = {asked}: pool {spec.pool!r} has no accelerators; choose "
            "another pool or leave it out"
        )
    if asked is not None:
        return asked
    return 0 if stage is Stage.DATA else pool.devices_per_node


def _for_pods(run: RunSpec, stage: Stage, processes: int, cpu: str) -> RunSpec:
    """Return the run with the processes and threads of one pod.

    A container sees all cores of its node; the share that it may use is told here.
    """
    cores = max(1, int(to_number(cpu)))
    if stage is Stage.DATA:
        data = run.data.model_copy(
            update={"num_processes": run.data.num_processes or cores},
        )
        return run.model_copy(update={"data": data})
    threads = run.parallelism.threads_per_process or max(1, cores // processes)
    parallelism = run.parallelism.model_copy(
        update={"num_processes": processes, "threads_per_process": threads}
    )
    return run.model_copy(update={"parallelism": parallelism})


def _stores(settings: OperatorSettings, placing: Placing) -> dict[str, str]:
    """Return the variables that name the stores which pods can reach."""
    stores = {"FSB_LEADERBOARD": settings.leaderboard, "FSB_MODEL_STORE": settings.model_store}
    return {
        name: placing.place(uri, name)
        for name, uri in stores.items()
        if uri and uri.startswith(("s3://", "pvc://"))
    }
