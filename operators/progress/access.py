# SPDX-License-Identifier: Apache-2.0
"""Who may report: a pod, about the run that it belongs to, with the token that it was given.

The API server says whose token it is (TokenReview); the pod's labels say which run is its own.
Answers are kept for a minute by the token's hash; tokens are never kept or logged.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from operators.builders.pods import KIND_LABEL, RUN_LABEL
from operators.gang import STAGES
from operators.progress.reports import Run
from pyfsb.resources import API_VERSION
from pyfsb.schema import Json

KEPT_SECONDS: Final = 60.0
_MAX_KEPT: Final = 4096
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"


class RefusedError(Exception):
    """A report that is not taken; carries the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        """Keep status and reason."""
        super().__init__(text)
        self.status = status


class ApiServer(Protocol):
    """What is asked of the cluster."""

    def review_token(self, token: str, audience: str) -> Json:
        """Return the status of a TokenReview."""

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        """Return an object, or None."""

    def patch_status(self, kind: str, namespace: str, name: str, status: Json) -> None:
        """Merge into the status of a custom resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    until: float
    run: Run | None
    refusal: RefusedError | None


class Doorkeeper:
    """Decides who may report about which run; threads may share it."""

    def __init__(
        self, cluster: ApiServer, *, audience: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep whom to ask.

        Args:
            cluster: The API server.
            audience: Audience that a token must be for.
            clock: Seconds.
        """
        self._cluster = cluster
        self._audience = audience
        self._clock = clock
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, token: str, run: Run) -> None:
        """Let a report about a run pass.

        Raises:
            RefusedError: 401 the token is nobody's; 403 it is not of a pod of this run; 404 there
                is no such run.
            ClusterError: The API failed.
        """
        answer = self._answer(token)
        if answer.refusal:
            raise RefusedError(answer.refusal.status, str(answer.refusal))
        if answer.run != run:
            raise RefusedError(403, "the token's pod does not belong to this run")

    def _answer(self, token: str) -> _Answer:
        key = hashlib.sha256(token.encode()).hexdigest()
        with self._lock:
            kept = self._answers.get(key)
            if kept and kept.until > self._clock():
                return kept
        run, refusal = None, None
        try:
            run = self._find_run(token)
        except RefusedError as exc:
            refusal = exc
        answer = _Answer(until=self._clock() + KEPT_SECONDS, run=run, refusal=refusal)
        with self._lock:
            self._answers[key] = answer
            self._answers.move_to_end(key)
            while len(self._answers) > _MAX_KEPT:
                self._answers.popitem(last=False)
        return answer

    def _find_run(self, token: str) -> Run:
        """Return the run that a token's pod belongs to."""
        review = self._cluster.review_token(token, self._audience)
        if not review.get("authenticated") or self._audience not in review.get("audiences", ()):
            raise RefusedError(401, f"not a valid token for {self._audience}")
        user = review.get("user") or {}
        extra = user.get("extra") or {}
        prefix, _, account = str(user.get("username", "")).partition("system:serviceaccount:")
        namespace = account.partition(":")[0]
        pod_name, pod_uid = (next(iter(extra.get(key) or ()), "") for key in (_POD_NAME, _POD_UID))
        if prefix or not (namespace and pod_name and pod_uid):
            raise RefusedError(403, "the token is not bound to a pod")
        pod = self._cluster.get("v1", "Pod", namespace, pod_name)
        if pod is None or pod["metadata"]["uid"] != pod_uid:
            raise RefusedError(403, "the token's pod is gone")
        labels = pod["metadata"].get("labels") or {}
        kind, name = labels.get(KIND_LABEL, ""), labels.get(RUN_LABEL, "")
        if kind not in STAGES or not name:
            raise RefusedError(403, "the token's pod belongs to no run")
        if self._cluster.get(API_VERSION, kind, namespace, name) is None:
            raise RefusedError(404, f"there is no {kind} {namespace}/{name}")
        return kind, namespace, name
