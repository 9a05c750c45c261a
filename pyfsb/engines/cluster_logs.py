# SPDX-License-Identifier: Apache-2.0
"""The log of one pod of a resource, read piece by piece, through restarts of the pod.

Called by `fsb logs` and by the cluster engine when a component asks for logs. Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyfsb.engines.cluster_client import ClusterClient
from pyfsb.engines.cluster_following import RUN_LABEL
from pyfsb.errors import NotReadyError
from pyfsb.schema import Json

_SERVICE_LABEL: Final = "serving.kserve.io/inferenceservice"
_CONTAINERS: Final = ("pytorch", "kserve-container")
_ROLE: Final = "training.kubeflow.org/replica-type"
_INDEX: Final = "training.kubeflow.org/replica-index"


def find_pods(client: ClusterClient, kind: str, name: str) -> list[Json]:
    """Return the pods of a resource by rank: the master first; of a service by name."""
    label = _SERVICE_LABEL if kind == "ServedModel" else RUN_LABEL
    pods = client.list_objects(
        f"/api/v1/namespaces/{client.namespace}/pods", labels=f"{label}={name}"
    )
    return sorted(pods, key=lambda pod: (_rank(pod), pod["metadata"]["name"]))


class LogTail:
    """Gives the lines of a pod's log that were not given before."""

    def __init__(
        self, client: ClusterClient, kind: str, name: str, *, rank: int = 0, num_lines: int = 200
    ) -> None:
        """Point at a pod; nothing is read yet.

        Args:
            client: The cluster.
            kind: Kind of the resource.
            name: Its name.
            rank: Which pod: 0 is the master, n the n-th worker, or copy n of a service.
            num_lines: Lines before now that the first reading gives at most.
        """
        self._client, self._kind, self._name = client, kind, name
        self._rank, self._num_lines = rank, num_lines
        self._uid = ""
        self._since = ""

    def read(self, *, is_previous: bool = False) -> list[str]:
        """Return the new lines; none while the pod does not run yet.

        Args:
            is_previous: Of the container before the last restart in the same pod.

        Raises:
            NotReadyError: There is no such pod; says which there are.
        """
        pod = self._find()
        if pod["metadata"]["uid"] != self._uid:
            self._uid, self._since = pod["metadata"]["uid"], ""
        container = _container(pod)
        if not container:
            return []
        query = {"container": container, "timestamps": "true"}
        query |= {"sinceTime": self._since} if self._since else {"tailLines": str(self._num_lines)}
        if is_previous:
            query["previous"] = "true"
        path = f"/api/v1/namespaces/{self._client.namespace}/pods/{pod['metadata']['name']}/log"
        return self._take(self._client.read_text(path, query) or "")

    def _find(self) -> Json:
        pods = find_pods(self._client, self._kind, self._name)
        # By label, not by place: while the master is away, the first pod left is a worker.
        is_service = self._kind == "ServedModel"
        ranks = [place if is_service else _rank(pod) for place, pod in enumerate(pods)]
        if self._rank not in ranks:
            there = f"it has {len(pods)}" if pods else "it has none"
            raise NotReadyError(
                f"{self._kind} {self._client.namespace}/{self._name} has no pod of rank "
                f"{self._rank}: {there} now. Pods come when it starts and go when it is stopped, "
                f"fails or is deleted; `fsb get {self._name}` tells how it stands"
            )
        return pods[ranks.index(self._rank)]

    def _take(self, text: str) -> list[str]:
        """Return the lines after the last one given; the API rounds times to whole seconds."""
        lines = []
        for line in text.splitlines():
            moment, _, words = line.partition(" ")
            if moment > self._since:
                lines.append((moment, words))
        if lines:
            self._since = lines[-1][0]
        return [words for _, words in lines]


def _container(pod: Json) -> str | None:
    """Return the container to read, once it has begun."""
    status = pod.get("status") or {}
    begun: Sequence[Json] = [
        item
        for item in status.get("containerStatuses") or []
        if not (item.get("state") or {}).get("waiting") or item.get("lastState")
    ]
    names = [item["name"] for item in begun]
    wanted = next((name for name in _CONTAINERS if name in names), None)
    return wanted or (names[0] if names else None)


def _rank(pod: Json) -> int:
    """Return 0 for the master, n for the n-th worker."""
    labels = pod["metadata"].get("labels") or {}
    is_worker = str(labels.get(_ROLE, "master")).lower() != "master"
    return int(labels.get(_INDEX, 0)) + is_worker
