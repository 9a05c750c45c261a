# SPDX-License-Identifier: Apache-2.0
"""Bring one custom resource nearer to what it asks for: observe, decide, apply, report.

Level-triggered and idempotent: whatever woke it, it looks at everything, and a restart at any
moment loses nothing because all memory is in `status`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from operators.builders.pods import build_spec_map
from operators.builders.pytorchjob import build_pytorchjob
from operators.cluster import Cluster
from operators.decide import Decision, Memory, Sight, Wish, decide
from operators.gang import Gang, plan_gang
from operators.observe import read_job, read_pod, read_result
from operators.settings import OperatorSettings
from pyfsb.config import Stage
from pyfsb.errors import FsbError
from pyfsb.resources import API_VERSION, KINDS
from pyfsb.resources.kinds import GangSpec
from pyfsb.resources.status import (
    Condition,
    EvaluationStatus,
    GangStatus,
    Phase,
    ScoreStatus,
)
from pyfsb.schema import Json, parse

_JOB: Final = ("kubeflow.org/v1", "PyTorchJob")
_STAGES: Final = {"TrainingRun": Stage.TRAINING, "Evaluation": Stage.EVALUATION}
_SPECS: Final = {kind.kind: kind.spec for kind in KINDS}
_STATUSES: Final = {kind.kind: kind.status for kind in KINDS}
_ENDED: Final = ("Succeeded", "Failed", "Error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """Brings gangs about; one for the whole operator."""

    cluster: Cluster
    settings: OperatorSettings
    clock: Callable[[], datetime]

    def reconcile(self, kind: str, namespace: str, name: str) -> Phase | None:
        """Look at one resource and do what is needed next.

        Returns:
            Its phase, or None when it is gone.

        Raises:
            ClusterError: The API failed; call again later.
        """
        resource = self.cluster.get(API_VERSION, kind, namespace, name)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            return None
        try:
            spec = parse(_SPECS[kind], resource["spec"], source=f"{kind} {name}: spec")
            assert isinstance(spec, GangSpec)
            gang = plan_gang(
                name=name, namespace=namespace, stage=_STAGES[kind], spec=spec,
                settings=self.settings,
            )  # fmt: skip
        except FsbError as exc:
            return self._refuse(resource, exc)
        return self._carry_on(resource, spec, gang)

    def _carry_on(self, resource: Json, spec: GangSpec, gang: Gang) -> Phase:
        before = _read_status(resource)
        job = self.cluster.get(*_JOB, gang.namespace, gang.name)
        if job and not _is_ours(job, resource):
            text = f"a PyTorchJob {gang.name} of somebody else is in the way; use another name"
            return self._refuse(resource, FsbError(text))
        pods = self.cluster.list_pods(gang.namespace, gang.name)
        result = read_result(pods)
        state, job_message = read_job(job)
        sight = Sight(
            now=self.clock(),
            num_pods=gang.num_pods,
            job=state,
            pods=tuple(read_pod(pod) for pod in pods),
            job_message=job_message,
            has_record=result is not None,
            wants_suspension=spec.suspend,
            stopper_ended=self._has_stopper_ended(spec, gang.namespace),
            policy=spec.restart,
            deadline_seconds=spec.deadline_seconds,
        )
        decision = decide(sight, _read_memory(before))
        self._do(decision, resource, gang, job)
        after = _write_status(before, decision, resource, spec, result, self.clock())
        self._report(resource, before, after, decision)
        return decision.phase

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
            kind = resource["kind"]
            self.cluster.apply(_spec_map(gang), resource)
            manifest = build_pytorchjob(gang, self.settings, kind=kind, is_suspended=is_suspended)
            self.cluster.apply(manifest, resource)

    def _has_stopper_ended(self, spec: GangSpec, namespace: str) -> bool:
        """Say whether the workflow that the work belongs to is gone or has ended."""
        if spec.stops_with is None:
            return False
        flow = self.cluster.get(
            "argoproj.io/v1alpha1", "Workflow", namespace, spec.stops_with.workflow
        )
        if flow is None or flow["metadata"]["uid"] != spec.stops_with.uid:
            return True
        return (flow.get("status") or {}).get("phase") in _ENDED

    def _refuse(self, resource: Json, error: FsbError) -> Phase:
        """Report a resource that cannot be carried out as it stands."""
        before = _read_status(resource)
        generation = resource["metadata"]["generation"]
        condition = _condition(
            before, type_="Valid", is_true=False, reason=type(error).__name__, message=str(error),
            now=self.clock(), generation=generation,
        )  # fmt: skip
        after = before.model_copy(
            update={
                "phase": Phase.INVALID, "message": str(error), "observed_generation": generation,
                "conditions": _with(before.conditions, condition),
            }
        )  # fmt: skip
        if after != before:
            self._patch(resource, after)
            self.cluster.tell(
                resource, reason=type(error).__name__, message=str(error), is_warning=True
            )
        return Phase.INVALID

    def _report(
        self, resource: Json, before: GangStatus, after: GangStatus, decision: Decision
    ) -> None:
        if after == before:
            return
        self._patch(resource, after)
        if after.phase is not before.phase:
            bad = (Phase.FAILED, Phase.BLOCKED, Phase.RESTARTING)
            self.cluster.tell(
                resource, reason=decision.reason, message=decision.message or str(after.phase),
                is_warning=after.phase in bad,
            )  # fmt: skip

    def _patch(self, resource: Json, status: GangStatus) -> None:
        metadata = resource["metadata"]
        self.cluster.patch_status(
            resource["kind"], metadata["namespace"], metadata["name"], dict(status.to_manifest())
        )


def _spec_map(gang: Gang) -> Json:
    from kubernetes import client

    manifest: Json = client.ApiClient().sanitize_for_serialization(build_spec_map(gang))
    return manifest


def _is_ours(job: Json, resource: Json) -> bool:
    owners = job["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == resource["metadata"]["uid"] for owner in owners)


def _read_status(resource: Json) -> GangStatus:
    """Return the status; what an older operator wrote and this one cannot read is forgotten."""
    kind = _STATUSES[resource["kind"]]
    try:
        status = parse(kind, resource.get("status") or {}, source="status")
    except FsbError:
        status = kind()
    assert isinstance(status, GangStatus)
    return status


def _read_memory(status: GangStatus) -> Memory:
    return Memory(
        phase=Phase.PENDING if status.phase in (None, Phase.INVALID) else Phase(str(status.phase)),
        start_time=_moment(status.start_time),
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
    has_ended = phase in (Phase.SUCCEEDED, Phase.FAILED)
    if decision.reason == "Ended":
        return before
    conditions = _with(
        before.conditions,
        _condition(
            before, type_="Valid", is_true=True, reason="Valid", message="", now=now,
            generation=generation,
        ),
        _condition(
            before, type_="Running", is_true=phase is Phase.RUNNING, reason=decision.reason,
            message=decision.message, now=now, generation=generation,
        ),
        _condition(
            before, type_="Succeeded", is_true=phase is Phase.SUCCEEDED if has_ended else None,
            reason=decision.reason, message=decision.message, now=now, generation=generation,
        ),
    )  # fmt: skip
    return before.model_copy(
        update={
            "phase": phase, "conditions": conditions, "observed_generation": generation,
            "message": decision.message, "model": spec.run.model.name,
            "start_time": _text(memory.start_time),
            "completion_time": _text(now) if has_ended else None,
            "restarts": memory.num_restarts, "pod_uids": memory.pod_uids,
            "restart_times": tuple(moment.isoformat() for moment in memory.restart_times),
            **_read_outcome(before, result),
        }
    )  # fmt: skip


def _read_outcome(before: GangStatus, result: Json | None) -> Json:
    """Return the fields that a complete stage's summary fills."""
    if result is None:
        return {}
    outcome: Json = {"record": result["record"], "digest": result["digest"]}
    if isinstance(before, EvaluationStatus) and "gate" in result:
        outcome["gate_passed"] = bool(result["gate"]["passed"])
        outcome["gate_reason"] = str(result["gate"]["reason"])
        outcome["scores"] = tuple(
            parse(ScoreStatus, score, source="scores") for score in result.get("scores", ())
        )
    return outcome


def _condition(
    before: GangStatus, *, type_: str, is_true: bool | None, reason: str, message: str,
    now: datetime, generation: int,
) -> Condition:  # fmt: skip
    """Return a condition; its time moves only when its status does."""
    status = "Unknown" if is_true is None else str(is_true)
    old = next((item for item in before.conditions if item.type == type_), None)
    moment = old.last_transition_time if old and old.status == status else str(_text(now))
    return Condition(
        type=type_, status=status, reason=reason, message=message,  # type: ignore[arg-type]
        last_transition_time=moment, observed_generation=generation,
    )  # fmt: skip


def _with(old: tuple[Condition, ...], *new: Condition) -> tuple[Condition, ...]:
    names = {condition.type for condition in new}
    return (*(item for item in old if item.type not in names), *new)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
