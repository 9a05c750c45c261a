# SPDX-License-Identifier: Apache-2.0
"""Gangs: what a DataPreparation, TrainingRun or Evaluation asks for, as one PyTorchJob.

Called by `operators.reconcile` with a spec that the API server has accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from kubernetes import client

from operators.builders.pods import RUN_LABEL, build_spec_map
from operators.builders.pytorchjob import build_pytorchjob
from operators.cluster import Cluster, check_owner
from operators.decide import Decision, Memory, Sight, Wish, decide
from operators.gang import Gang, plan_gang
from operators.metrics import Metrics
from operators.observe import read_job, read_pod, read_result
from operators.places import to_claim
from operators.references import resolve_reference
from operators.reporting import (
    Reporter,
    make_condition,
    merge_conditions,
    read_status,
    to_moment,
    to_text,
)
from operators.settings import OperatorSettings
from operators.troubles import find_trouble
from operators.workflows import has_stopper_ended
from pyfsb import versions
from pyfsb.resources.kinds import GangSpec
from pyfsb.resources.status import EvaluationStatus, GangStatus, Phase, ScoreStatus
from pyfsb.schema import Json, parse

_JOB: Final = ("kubeflow.org/v1", "PyTorchJob")
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)
GENERATION_ANNOTATION: Final = "fengshenbang.io/generation"
"""Annotation of a job: generation of the spec that it was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangReconciler:
    """Brings gangs about."""

    cluster: Cluster
    settings: OperatorSettings
    metrics: Metrics
    reporter: Reporter

    def carry_on(self, resource: Json, spec: GangSpec) -> Phase:
        """Look at a gang and do what is needed next.

        Raises:
            ConfigError: It cannot be carried out as it stands.
            NotReadyError: What a deleted resource of the same name left is not gone yet.
            FsbError: The API or the model store failed.
        """
        before = read_status(resource)
        assert isinstance(before, GangStatus)
        metadata = resource["metadata"]
        spec, before = self._pin(resource, spec, before)
        gang = plan_gang(
            kind=resource["kind"], name=metadata["name"], namespace=metadata["namespace"],
            spec=spec, settings=self.settings,
        )  # fmt: skip
        job = self.cluster.get(*_JOB, gang.namespace, gang.name)
        check_owner(job, resource)
        pods = self.cluster.list_pods(gang.namespace, RUN_LABEL, gang.name)
        result = read_result(pods, job)
        state, job_message = read_job(job)
        sight = Sight(
            now=self.reporter.clock(),
            num_pods=gang.num_pods,
            job=state,
            pods=tuple(read_pod(pod) for pod in pods),
            job_message=job_message,
            is_outdated=_is_outdated(job, metadata["generation"]),
            has_record=result is not None,
            wants_suspension=spec.suspend,
            stopper_ended=has_stopper_ended(self.cluster, spec.stops_with, gang.namespace),
            policy=spec.restart,
            deadline_seconds=spec.deadline_seconds,
        )
        memory = _read_memory(before)
        trouble = find_trouble(self.cluster, gang.namespace, job, sight, memory)
        decision = decide(replace(sight, trouble=trouble), memory)
        self._do(decision, resource, gang, job)
        after = _write_status(before, decision, resource, spec, result, sight.now)
        self._count(gang, before, after, sight.now)
        self.reporter.write(
            resource, before, after, reason=decision.reason, message=decision.message
        )
        return decision.phase

    def _count(self, gang: Gang, before: GangStatus, after: GangStatus, now: datetime) -> None:
        """Note in the metrics what a look has changed."""
        if (after.restarts or 0) > (before.restarts or 0):
            self.metrics.restarts.labels(kind=gang.kind).inc()
        if after.phase is Phase.FAILED:
            self.metrics.failures.labels(kind=gang.kind).inc()
        if self.settings.progress_url:
            key = (gang.kind, gang.namespace, gang.name)
            self.metrics.note_silence(key, _silent_seconds(after, now))

    def _pin(
        self, resource: Json, spec: GangSpec, before: GangStatus
    ) -> tuple[GangSpec, GangStatus]:
        """Return the spec with its name@alias resolved, once for the life of the resource.

        What it stands for is written down before anything is started from it.
        """
        asked = spec.run.model.checkpoint
        if asked is None or not versions.is_reference(asked):
            return spec, before
        checkpoint = before.checkpoint
        if checkpoint is None:
            checkpoint = resolve_reference(asked, self.settings).checkpoint
            before = before.model_copy(update={"checkpoint": checkpoint})
            self.reporter.patch(resource, before)
        model = spec.run.model.model_copy(update={"checkpoint": checkpoint})
        run = spec.run.model_copy(update={"model": model})
        return spec.model_copy(update={"run": run}), before

    def _do(self, decision: Decision, resource: Json, gang: Gang, job: Json | None) -> None:
        """Make the job what it should be."""
        if decision.job is Wish.ABSENT and job:
            uid = job["metadata"]["uid"]
            self.cluster.delete(*_JOB, gang.namespace, gang.name, uid)
        if decision.job in (Wish.RUNNING, Wish.SUSPENDED):
            is_suspended = decision.job is Wish.SUSPENDED
            if job and bool(job["spec"].get("runPolicy", {}).get("suspend")) is is_suspended:
                return
            if job is None and is_suspended:
                return
            self.cluster.apply(_spec_map(gang), resource)
            manifest = build_pytorchjob(gang, self.settings, is_suspended=is_suspended)
            generation = str(resource["metadata"]["generation"])
            manifest["metadata"]["annotations"] = {GENERATION_ANNOTATION: generation}
            self.cluster.apply(manifest, resource)


def _silent_seconds(status: GangStatus, now: datetime) -> float | None:
    """Return how long a running gang has told nothing; None: it does not run."""
    if status.phase is not Phase.RUNNING:
        return None
    told = [c.last_transition_time for c in status.conditions if c.type == "Running"]
    if status.progress and status.progress.reported_at:
        told.append(status.progress.reported_at)
    last = max(datetime.fromisoformat(text) for text in told)
    return max(0.0, (now - last).total_seconds())


def _is_outdated(job: Json | None, generation: int) -> bool:
    """Say whether a job was made from another generation of the spec."""
    noted = ((job or {"metadata": {}})["metadata"].get("annotations") or {}).get(
        GENERATION_ANNOTATION
    )
    return noted not in (None, str(generation))


def _spec_map(gang: Gang) -> Json:
    manifest: Json = client.ApiClient().sanitize_for_serialization(build_spec_map(gang))
    return manifest


def _read_memory(status: GangStatus) -> Memory:
    return Memory(
        phase=Phase.PENDING if status.phase in (None, Phase.INVALID) else Phase(str(status.phase)),
        start_time=to_moment(status.start_time),
        restart_times=tuple(datetime.fromisoformat(text) for text in status.restart_times),
        num_restarts=status.restarts or 0,
        pod_uids=status.pod_uids,
    )


def _write_status(
    before: GangStatus,
    decision: Decision,
    resource: Json,
    spec: GangSpec,
    result: Json | None,
    now: datetime,
) -> GangStatus:
    """Return the status after a decision."""
    memory, phase = decision.memory, decision.phase
    generation = resource["metadata"]["generation"]
    has_ended = phase in _ENDED
    conditions = merge_conditions(
        before.conditions,
        make_condition(
            before, type_="Valid", is_true=True, reason="Valid", message="", now=now,
            generation=generation,
        ),
        make_condition(
            before, type_="Running", is_true=phase is Phase.RUNNING, reason=decision.reason,
            message=decision.message, now=now, generation=generation,
        ),
        make_condition(
            before, type_="Succeeded", is_true=phase is Phase.SUCCEEDED if has_ended else None,
            reason=decision.reason, message=decision.message, now=now, generation=generation,
        ),
    )  # fmt: skip
    return before.model_copy(
        update={
            "phase": phase, "conditions": conditions, "observed_generation": generation,
            "message": decision.message, "model": spec.run.model.name,
            "checkpoint": spec.run.model.checkpoint,
            "start_time": to_text(memory.start_time),
            "completion_time": to_text(now) if has_ended else None,
            "restarts": memory.num_restarts, "pod_uids": memory.pod_uids,
            "restart_times": tuple(moment.isoformat() for moment in memory.restart_times),
            **_read_outcome(before, result),
        }
    )  # fmt: skip


def _read_outcome(before: GangStatus, result: Json | None) -> Json:
    """Return the fields that a complete stage's summary fills."""
    if result is None:
        return {}
    outcome: Json = {"record": to_claim(result["record"]), "digest": result["digest"]}
    if isinstance(before, EvaluationStatus) and "gate" in result:
        outcome["gate_passed"] = bool(result["gate"]["passed"])
        outcome["gate_reason"] = str(result["gate"]["reason"])
        outcome["scores"] = tuple(
            parse(ScoreStatus, score, source="scores") for score in result.get("scores", ())
        )
        if "servedCheckpoint" in result:
            outcome["served_checkpoint"] = to_claim(result["servedCheckpoint"])
            outcome["served_digest"] = result["servedDigest"]
    return outcome
