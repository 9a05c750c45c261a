# SPDX-License-Identifier: Apache-2.0
"""Why pods are missing or do not start, where nothing but events tells.

A quota, Pod Security Standard or webhook that refuses a pod is an event of the job or ReplicaSet; a
volume that cannot be mounted is one of the pod. They are read only while something is missing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from operators.cluster import FIELD_MANAGER, Cluster, event_time
from operators.decide import JobState, Memory, Sight, Trouble
from pyfsb.schema import Json

_WAIT: Final = timedelta(seconds=15)
"""Pods may take so long before anybody asks why."""
_SILENCE: Final = timedelta(seconds=60)
"""So long after the start somebody should have made pods, or said why not."""
_NOT_MADE: Final = "FailedCreate"
"""Begins the reasons for which the Training Operator 1.9 and Deployments make no pods."""
_NOT_STARTED: Final = (
    "FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox",
)  # fmt: skip
_RETRIED_WITHIN: Final = timedelta(minutes=20)
"""A ReplicaSet that is refused tries again within 1,000 s: what is older has been overcome."""
_MAX_PODS: Final = 3
"""Pods whose events are read at a look: what keeps many from starting is the same for all."""
_MESSAGE_LIMIT: Final = 1000


def find_trouble(
    cluster: Cluster, namespace: str, job: Json | None, sight: Sight, memory: Memory
) -> Trouble | None:
    """Return what keeps pods from being made or started; None: nothing, or it is too early."""
    since = _started_at(job, memory)
    if job is None or sight.job is not JobState.ACTIVE or since is None:
        return None
    if sight.now - since < _WAIT:
        return None
    if len(sight.pods) < sight.num_pods and not memory.pod_uids:
        trouble = _why_not_made(cluster, namespace, job, sight, since)
        if trouble:
            return trouble
    # One with a word of its own - of its container or the scheduler - needs no event.
    silent = [p for p in sight.pods if not (p.is_running or p.is_lost or p.reason or p.message)]
    waiting = [pod for pod in silent if pod.exit_code is None]
    for pod in waiting[:_MAX_PODS]:
        trouble = why_not_started(cluster, namespace, pod.uid)
        if trouble:
            text = f"{pod.name}: {trouble.reason}: {trouble.message}"
            return Trouble(reason=trouble.reason, message=text)
    return None


def why_not_started(cluster: Cluster, namespace: str, uid: str) -> Trouble | None:
    """Return what keeps a pod's containers from being made, if that is the newest news of it."""
    events = cluster.list_events(namespace, uid=uid)
    if not events or events[-1].type != "Warning" or events[-1].reason not in _NOT_STARTED:
        return None
    reason = events[-1].reason
    return Trouble(reason=reason, message=_text(events[-1].message))


def why_not_copied(cluster: Cluster, namespace: str, deployment: str, now: datetime) -> str:
    """Return why a Deployment's ReplicaSets are refused pods; empty: they are not."""
    refused = [
        event
        for event in cluster.list_events(namespace, reason=_NOT_MADE)
        if event.involved_object.kind == "ReplicaSet"
        and event.involved_object.name.rpartition("-")[0] == deployment
        and now - event_time(event) < _RETRIED_WITHIN
    ]
    return _text(refused[-1].message) if refused else ""


def _why_not_made(
    cluster: Cluster, namespace: str, job: Json, sight: Sight, since: datetime
) -> Trouble | None:
    events = cluster.list_events(namespace, uid=job["metadata"]["uid"])
    refused = [
        event
        for event in events
        if event.type == "Warning" and str(event.reason).startswith(_NOT_MADE)
        and event_time(event) >= since
    ]  # fmt: skip
    if refused:
        return Trouble(reason=refused[-1].reason, message=_text(refused[-1].message))
    if not sight.pods and not events and sight.now - since > _SILENCE:
        text = "nobody makes the PyTorchJob's pods: does the Training Operator run?"
        return Trouble(reason="NoPods", message=text)
    return None


def _started_at(job: Json | None, memory: Memory) -> datetime | None:
    """Return when the job was last told to run: when we last applied it."""
    fields = (job or {"metadata": {}})["metadata"].get("managedFields") or ()
    ours = [
        datetime.fromisoformat(field["time"])
        for field in fields
        if field.get("manager") == FIELD_MANAGER and field.get("time")
    ]
    return max(ours, default=memory.start_time)


def _text(message: str | None) -> str:
    return (message or "").strip()[:_MESSAGE_LIMIT]
