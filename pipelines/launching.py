# SPDX-License-Identifier: Apache-2.0
"""One stage of a run, started by a component: here, or as a custom resource of a cluster.

Called by the components, inside their pods or subprocesses. Never imports kfp.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from pipelines.passthrough import TaskConfig, gang_resources, pod_overrides
from pipelines.stopping import find_stopper, is_repeated, read_own_pod
from pyfsb import storage
from pyfsb.config import RunSpec, Stage
from pyfsb.engines import local
from pyfsb.engines.cluster_client import ClusterClient, connect, resource_path
from pyfsb.engines.cluster_following import explain_end, patiently, read_view
from pyfsb.engines.cluster_resources import KIND_OF, ClusterOptions
from pyfsb.engines.protocol import StageResult
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.logs import configure_logging
from pyfsb.resources.status import Phase

ENGINES: Final = ("kubernetes", "local")
_GANGS: Final = (Stage.TRAINING, Stage.EVALUATION)
_NAME_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a stage is started."""

    engine: str
    """kubernetes: as a custom resource; local: as a subprocess of this one."""
    run_id: str = ""
    """Id of the pipeline's run, the same in every try of a task."""
    pool: str = "default"
    """Node pool of the chart."""
    nodes: int = 1
    """Pods of a training or an evaluation."""
    processes_per_node: int = 0
    """Processes of a pod; 0 takes the pool's devices, else the spec's."""
    task_config: TaskConfig | None = None
    """What the pipeline's author set on the task."""


def run_stage(spec: RunSpec, stage: Stage, launch: Launch) -> StageResult:
    """Run one stage of a spec unless it is complete.

    Raises:
        UnknownNameError: There is no such engine.
        ConfigError: The spec leaves the stage out; serving must not start against its word.
        FsbError: As the engine's.
    """
    check_engine(launch.engine)
    if stage not in spec.stages:
        raise ConfigError(
            f"the spec leaves out {stage} (it does {', '.join(spec.stages)}), which is this task's "
            "work; put it into the spec, or take a pipeline without it"
        )
    if launch.engine == "local":
        return local.run_stage(spec, stage)
    from pyfsb.engines.kubernetes import run_stage_on_cluster

    configure_logging()  # the task's log shows the progress
    cluster = connect()
    pod = patiently(lambda: read_own_pod(cluster))
    name = resource_name(spec, stage, launch.run_id)
    if name and is_repeated(pod):
        _check_not_ended(cluster, stage, name)
    is_gang = stage in _GANGS
    options = ClusterOptions(
        namespace=cluster.namespace,
        pool=launch.pool,
        nodes=launch.nodes if is_gang else 1,
        processes_per_node=(launch.processes_per_node or None) if is_gang else None,
        resources=gang_resources(launch.task_config),
        pod=pod_overrides(launch.task_config),
        # A service stays when the pipeline that made it is deleted.
        stops_with=None if stage is Stage.SERVING else find_stopper(pod),
        name=name,
        evaluation=resource_name(spec, Stage.EVALUATION, launch.run_id),
        shows_logs=True,
    )
    return run_stage_on_cluster(spec, stage, options)


def check_engine(engine: str) -> None:
    """Check that there is such an engine.

    Raises:
        UnknownNameError: There is not; carries the nearest.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)


def read_board(spec: RunSpec, launch: Launch) -> str:
    """Return the run's leaderboard as a page; on a cluster the Evaluation has written it."""
    if launch.engine == "local":
        run_stage(spec, Stage.LEADERBOARD, launch)
    place = spec.output_of(Stage.LEADERBOARD)
    return storage.read_text(storage.join(place, "leaderboard.html"))


def resource_name(spec: RunSpec, stage: Stage, run_id: str) -> str | None:
    """Return the name of a stage's custom resource, the same in every try of a pipeline's task.

    A retried launcher therefore finds what the earlier one applied, while another run of the
    pipeline starts anew, whatever became of the resources of this one.

    Returns:
        At most 52 characters, which leaves pods their suffix. None, for the engine's own name,
        without a run, and for a service: a later run of the same name updates it.
    """
    if stage is Stage.SERVING or not run_id or "{{" in run_id:
        return None
    words = re.sub(r"[^a-z0-9]+", "-", spec.name.lower()).strip("-")
    if not words[:1].isalpha():
        words = f"run-{words}"
    key = hashlib.sha256(f"{run_id} {spec.output}".encode()).hexdigest()[:8]
    return f"{words[:_NAME_CHARACTERS].strip('-')}-{stage}-{key}"


def _check_not_ended(cluster: ClusterClient, stage: Stage, name: str) -> None:
    """Let a repeated try tell the end of the work that an earlier one started.

    The operator has restarted it as often as it may; KFP's retries are for lost launchers.
    """
    path = resource_path(KIND_OF[stage], cluster.namespace, name)
    found = patiently(lambda: cluster.get(path))
    view = read_view(found) if found else None
    if view and view.phase in (Phase.FAILED, Phase.INVALID):
        raise explain_end(view)
