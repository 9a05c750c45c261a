# SPDX-License-Identifier: Apache-2.0
"""From Kubernetes' objects to what `decide` understands; pure.

The only place that knows what a PyTorchJob's conditions and a pod's container states mean.
"""

from __future__ import annotations

import json
from typing import Final

from kubernetes import client

from operators.builders.pods import CONTAINER
from operators.decide import JobState, Pod
from pyfsb.schema import Json

_MESSAGE_LIMIT: Final = 1500


def read_job(job: Json | None) -> tuple[JobState, str]:
    """Return a PyTorchJob's state, all its conditions read together, and its failure's text."""
    if job is None:
        return JobState.ABSENT, ""
    found = {
        item["type"]: item
        for item in (job.get("status") or {}).get("conditions") or []
        if item.get("status") == "True"
    }
    if "Failed" in found:
        return JobState.FAILED, str(found["Failed"].get("message", ""))
    if "Succeeded" in found:
        return JobState.SUCCEEDED, ""
    policy = job["spec"].get("runPolicy") or {}
    return (JobState.SUSPENDED if policy.get("suspend") else JobState.ACTIVE), ""


def read_pod(pod: client.V1Pod) -> Pod:
    """Return one pod as `decide` sees it."""
    name, uid = pod.metadata.name, pod.metadata.uid
    status = next((s for s in pod.status.container_statuses or () if s.name == CONTAINER), None)
    ended = status.state.terminated if status and status.state else None
    if ended:
        reason = pod.status.reason or ended.reason or ""
        return Pod(
            name=name, uid=uid, exit_code=ended.exit_code, reason=reason,
            message=_tail(ended.message),
        )  # fmt: skip
    if pod.status.phase == "Failed":  # evicted before a container could say anything
        return Pod(
            name=name, uid=uid, exit_code=137, reason=pod.status.reason or "Failed",
            message=_tail(pod.status.message),
        )  # fmt: skip
    if status and status.state and status.state.running:
        return Pod(name=name, uid=uid, is_running=True)
    reason, message = _why_waiting(pod)
    return Pod(name=name, uid=uid, reason=reason, message=message)


def read_result(pods: list[client.V1Pod]) -> Json | None:
    """Return what a pod that ended well left in its termination message: the record's summary."""
    for pod in pods:
        for status in pod.status.container_statuses or ():
            ended = status.state.terminated if status.state else None
            if status.name != CONTAINER or not ended or ended.exit_code != 0:
                continue
            try:
                result = json.loads(ended.message or "")
            except ValueError:
                continue
            if isinstance(result, dict) and "digest" in result:
                return result
    return None


def _why_waiting(pod: client.V1Pod) -> tuple[str, str]:
    """Return why a pod does not run yet: a container's word, else the scheduler's."""
    statuses = [
        *(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ()),
    ]  # fmt: skip
    for status in statuses:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason not in (None, "PodInitializing", "ContainerCreating"):
            return waiting.reason, _tail(waiting.message)
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason or "", _tail(condition.message)
    return "", ""


def _tail(text: str | None) -> str:
    """Return the end of a text: of a log, the last lines say what went wrong."""
    return (text or "").strip()[-_MESSAGE_LIMIT:]
