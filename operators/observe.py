# SPDX-License-Identifier: Apache-2.0
"""From Kubernetes' objects to what `decide` understands; pure.

The only place that knows what a PyTorchJob's conditions and a pod's container states mean.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from kubernetes import client

from operators.builders.pods import CONTAINER
from operators.decide import JobState, Pod
from pyfsb.schema import Json

_MESSAGE_LIMIT: Final = 1500
_CODE_OF_LOST: Final = 137
"""Stands for the code of a container that never ended by itself: as if it had been killed."""
_OUT_OF_MEMORY: Final = "out of memory: raise resources.memory, or lower batch.micro_tokens"
_INIT: Final = "init-pytorch"
"""Init container that the Training Operator 1.9 gives workers: looks up the master's name."""


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
    found = replace(_read_container(pod), ending_by=pod.metadata.deletion_timestamp)
    disruption = _why_disrupted(pod)
    if disruption:
        reason, message = disruption
        return replace(found, is_lost=True, reason=reason, message=message)
    if found.ending_by and found.exit_code is None:
        return replace(found, is_lost=True, reason="Deleted", message="somebody deleted it")
    # One that ended keeps its own words: the Training Operator deletes it to make it again.
    return found


def _read_container(pod: client.V1Pod) -> Pod:
    """Return a pod by what its container and the kubelet say."""
    name, uid = pod.metadata.name, pod.metadata.uid
    status = next((s for s in pod.status.container_statuses or () if s.name == CONTAINER), None)
    ended = status.state.terminated if status and status.state else None
    if ended:
        reason = pod.status.reason or ended.reason or ""
        message = _OUT_OF_MEMORY if ended.reason == "OOMKilled" else tail(ended.message)
        return Pod(name=name, uid=uid, exit_code=ended.exit_code, reason=reason, message=message)
    if pod.status.phase == "Failed":  # before the container could say anything: evicted, or init
        reason, message = _why_init_failed(pod) or (
            pod.status.reason or "Failed", tail(pod.status.message),
        )  # fmt: skip
        return Pod(name=name, uid=uid, exit_code=_CODE_OF_LOST, reason=reason, message=message)
    if status and status.state and status.state.running:
        return Pod(name=name, uid=uid, is_running=True)
    reason, message = _why_waiting(pod)
    return Pod(name=name, uid=uid, reason=reason, message=message)


def _why_disrupted(pod: client.V1Pod) -> tuple[str, str] | None:
    """Return reason and sentence when the cluster takes a pod away, whatever its container does.

    Source: Kubernetes, "Disruptions" (condition DisruptionTarget, with the reason of whoever
    preempts or evicts) and "Nodes" (a pod of a dead node stays and is being deleted for ever).
    """
    if pod.status.phase == "Unknown" or pod.status.reason == "NodeLost":
        return "NodeLost", f"node {pod.spec.node_name} does not answer"
    for condition in pod.status.conditions or ():
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return condition.reason or condition.type, tail(condition.message)
    return None


def _why_init_failed(pod: client.V1Pod) -> tuple[str, str] | None:
    """Return what an init container that failed says; the Training Operator's waits for a name."""
    for status in pod.status.init_container_statuses or ():
        ended = status.state.terminated if status.state else None
        if ended and ended.exit_code:
            why = "the master's name was not there in time" if status.name == _INIT else ""
            text = tail(ended.message) or why
            message = f"init container {status.name} ended with exit code {ended.exit_code}"
            return "InitFailed", f"{message}: {text}".rstrip(": ")
    return None


def read_result(pods: list[client.V1Pod], job: Json | None) -> Json | None:
    """Return what a pod that ended well left in its termination message: the record's summary.

    Args:
        pods: Pods with the gang's label.
        job: The gang's job. Only its own pods count: those of a deleted resource of the same name
            may still be there, and speak of other work.
    """
    uid = job["metadata"].get("uid") if job else None
    for pod in pods:
        if not any(owner.uid == uid for owner in pod.metadata.owner_references or ()):
            continue
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
    statuses = container_statuses(pod)
    for status in statuses:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason not in (None, "PodInitializing", "ContainerCreating"):
            return waiting.reason, tail(waiting.message)
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason or "", tail(condition.message)
    if any(s.name == _INIT and s.state and s.state.running for s in statuses):
        return "", "waits for the master's name"
    return "", ""


def container_statuses(pod: client.V1Pod) -> list[client.V1ContainerStatus]:
    """Return the statuses of a pod's containers, those that run before the others first."""
    status = pod.status
    return [*(status.init_container_statuses or ()), *(status.container_statuses or ())]


def tail(text: str | None) -> str:
    """Return the end of a text: of a log, the last lines say what went wrong."""
    return (text or "").strip()[-_MESSAGE_LIMIT:]
