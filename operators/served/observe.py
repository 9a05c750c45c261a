# SPDX-License-Identifier: Apache-2.0
"""From Kubernetes' and KServe's objects to what `operators.served.decide` understands; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kubernetes import client

from operators.builders.inferenceservice import (
    CHECKPOINT_ANNOTATION,
    DIGEST_ANNOTATION,
    VERSION_ANNOTATION,
)
from operators.decide import BLOCKING
from operators.observe import container_statuses, tail
from operators.served.decide import Copy, Judgement, SeenService
from operators.served.plan import Checkpoint
from pyfsb.resources.status import EvaluationStatus, Phase
from pyfsb.schema import Json

_FETCHER: Final = "storage-initializer"
"""Init container in which KServe has the checkpoint fetched."""
_NO_SERVICE: Final = (
    "RuntimeDisabled", "NoSupportingRuntime", "RuntimeNotRecognized", "InvalidPredictorSpec",
)  # fmt: skip
"""Reasons for which KServe makes no pods at all."""


def read_evaluation(name: str, status: EvaluationStatus | None) -> Judgement:
    """Return what an Evaluation says; None: there is none of that name."""
    if status is None:
        return Judgement(name=name, phase=None)
    phase = status.phase or Phase.PENDING
    served = None
    if status.served_checkpoint:
        served = Checkpoint(uri=status.served_checkpoint, digest=status.served_digest)
    reason = status.gate_reason if phase is Phase.SUCCEEDED else status.message
    return Judgement(
        name=name, phase=phase, has_passed=bool(status.gate_passed), reason=reason or "",
        served=served,
    )  # fmt: skip


def read_service(service: Json | None) -> SeenService | None:
    """Return an InferenceService as `decide` sees it."""
    if service is None:
        return None
    metadata, status = service["metadata"], service.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    # KServe counts its own changes, too: seen was 3 for an object of generation 2.
    is_current = int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0)
    failure = (status.get("modelStatus") or {}).get("lastFailureInfo") or {}
    reason = str(failure.get("reason", ""))
    trouble = reason if is_current and reason in _NO_SERVICE else ""
    word = failure if trouble else conditions.get("PredictorReady") or {}
    return SeenService(
        checkpoint=_read_checkpoint(metadata.get("annotations") or {}),
        is_ready=is_current and (conditions.get("Ready") or {}).get("status") == "True",
        trouble=trouble,
        message=tail(str(word.get("message") or "")),
    )


def read_url(service: Json | None, *, name: str, namespace: str) -> str | None:
    """Return where a service answers inside the cluster; None: there is none."""
    if service is None:
        return None
    address = (service.get("status") or {}).get("address") or {}
    return str(address.get("url") or f"http://{name}-predictor.{namespace}.svc")


def read_copies(pods: list[client.V1Pod]) -> tuple[Copy, ...]:
    """Return the pods of a service that are not on their way out."""
    return tuple(_read_copy(pod) for pod in pods if pod.metadata.deletion_timestamp is None)


def _read_copy(pod: client.V1Pod) -> Copy:
    conditions = {item.type: item for item in pod.status.conditions or ()}
    ready = conditions.get("Ready")
    is_ready = ready is not None and ready.status == "True"
    trouble, message = ("", "") if is_ready else _find_trouble(pod)
    return Copy(
        name=pod.metadata.name,
        checkpoint=_read_checkpoint(pod.metadata.annotations or {}),
        is_ready=is_ready,
        trouble=trouble,
        message=message,
        is_blocked=trouble in BLOCKING,
    )


def _find_trouble(pod: client.V1Pod) -> tuple[str, str]:
    """Return what keeps a pod from getting ready, in a word and a sentence."""
    for status in container_statuses(pod):
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason in BLOCKING:
            return waiting.reason, tail(waiting.message)
        ended = _last_end(status)
        if ended is not None and ended.exit_code != 0:
            word = "FetchFailed" if status.name == _FETCHER else "CrashLoop"
            return word, tail(f"exit code {ended.exit_code}: {_last_lines(ended.message)}")
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason or "Unschedulable", tail(condition.message)
    if pod.status.phase == "Failed":
        return pod.status.reason or "Failed", tail(pod.status.message)
    return "", ""


def _last_end(status: Any) -> Any:
    """Return how a container ended last: now, or before it was started again."""
    for state in (status.state, status.last_state):
        if state is not None and state.terminated is not None:
            return state.terminated
    return None


def _last_lines(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return " | ".join(line.strip() for line in lines[-3:])


def _read_checkpoint(annotations: Mapping[str, str]) -> Checkpoint:
    version = annotations.get(VERSION_ANNOTATION) or ""
    return Checkpoint(
        uri=annotations.get(CHECKPOINT_ANNOTATION) or "",
        digest=annotations.get(DIGEST_ANNOTATION) or None,
        version=int(version) if version.isdigit() else None,
    )
