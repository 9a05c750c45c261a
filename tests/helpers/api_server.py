"""A Kubernetes API server in memory, behind the one call that our client makes of the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.client.exceptions import ApiException

from pyfsb.engines.cluster_client import ClusterClient
from pyfsb.resources import API_VERSION, KINDS

Json = dict[str, Any]
PLURALS = {kind.plural: kind.kind for kind in KINDS}


class Answer:
    """What urllib3 gives."""

    def __init__(self, value: Any) -> None:
        self.data = value.encode() if isinstance(value, str) else json.dumps(value).encode()


class FakeApi:
    """Objects by path; `on_look` plays the operator before each read of one of ours."""

    def __init__(self) -> None:
        self.configuration = SimpleNamespace(host="https://cluster.test")
        self.objects: dict[str, Json] = {}
        self.texts: dict[str, str] = {}
        self.denied: set[str] = set()
        self.calls: list[tuple[str, str, Json | None]] = []
        self.failures: list[Exception] = []
        self.services: Callable[[str, Json], Any] = lambda path, body: {}
        self.on_look: Callable[[Json], None] = lambda resource: None
        self._uid = 0
        kinds = [{"name": kind.plural} for kind in KINDS]
        self.objects[f"/apis/{API_VERSION}"] = {"resources": kinds}

    def client(self, namespace: str = "team", *, is_inside: bool = False) -> ClusterClient:
        """Return a client of ours on it."""
        return ClusterClient(self, namespace=namespace, is_inside=is_inside)

    def call_api(self, url: str, method: str, *, body: Json | None = None, **rest: Any) -> Answer:
        """Do what the package's method does, for the calls that we make."""
        place = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(place.query).items()}
        self.calls.append((method, url, body))
        if self.failures:
            raise self.failures.pop(0)
        path, content = place.path, rest["header_params"]["Content-Type"]
        if path in self.denied:
            refuse(403, f"{method} {path} is forbidden")
        if "/proxy/" in path:
            return Answer(self.services(path, body or {}))
        if path.endswith("selfsubjectaccessreviews"):
            return Answer({"status": {"allowed": self._is_allowed(body or {})}})
        if method == "GET":
            return self._read(path, query)
        if method == "DELETE":
            return self._delete(path, body or {})
        assert body is not None
        assert method == "PATCH"
        return Answer(self._patch(path, body, is_apply=content.startswith("application/apply")))

    def put(self, path: str, value: Json) -> Json:
        """Store an object as it is."""
        self.objects[path] = value
        return value

    def _is_allowed(self, body: Json) -> bool:
        asked = body["spec"]["resourceAttributes"]
        return f"{asked['verb']} {asked['resource']}" not in self.denied

    def _read(self, path: str, query: dict[str, str]) -> Answer:
        if path in self.texts:
            return Answer(self.texts[path])
        if path in self.objects:
            if "/fengshenbang.io/v1alpha1/namespaces/" in path:
                self.on_look(self.objects[path])
                if path not in self.objects:
                    refuse(404, f"{path} not found")
            return Answer(self.objects[path])
        below = [value for key, value in self.objects.items() if self._is_in(key, path)]
        known = {"pods", "deployments", "configmaps", "nodes", "storageclasses", *PLURALS}
        if path.rpartition("/")[2] not in known:
            refuse(404, f"{path} not found")
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
        chosen = [
            item
            for item in below
            if wanted.items() <= (item["metadata"].get("labels") or {}).items()
        ]
        first = int(query.get("continue", "0"))
        page: Json = {"items": chosen[first : first + 2], "metadata": {}}
        if first + 2 < len(chosen):
            page["metadata"]["continue"] = str(first + 2)
        return Answer(page)

    @staticmethod
    def _is_in(key: str, path: str) -> bool:
        head, _, plural = path.rpartition("/")
        folder, _, _ = key.rpartition("/")
        return folder == path or (folder.startswith(head) and folder.endswith(f"/{plural}"))

    def _patch(self, path: str, body: Json, *, is_apply: bool) -> Json:
        before = self.objects.get(path)
        if before is None:
            if not is_apply:
                refuse(404, f"{path} not found")
            self._uid += 1
            _, _, _, _, _, namespace, plural, name = path.split("/")
            metadata = {
                "name": name, "namespace": namespace, "uid": f"u{self._uid}", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            }  # fmt: skip
            value = {**body, "kind": PLURALS[plural], "metadata": metadata}
            return self.put(path, json.loads(json.dumps(value)))
        spec = before["spec"] | json.loads(json.dumps(body["spec"]))
        if before["spec"].get("run") != spec.get("run"):
            refuse(422, "spec: Invalid value: run is immutable: make another resource")
        if spec != before["spec"]:
            before["spec"] = spec
            before["metadata"]["generation"] += 1
        return before

    def _delete(self, path: str, body: Json) -> Answer:
        found = self.objects.get(path)
        if found is None:
            refuse(404, f"{path} not found")
        assert body["preconditions"]["uid"] == found["metadata"]["uid"]
        del self.objects[path]
        return Answer({})


def refuse(status: int, message: str) -> None:
    """Answer as an API server answers with an error."""
    error = ApiException(status=status, reason="refused")
    error.body = json.dumps({"kind": "Status", "message": message}).encode()
    raise error


def stop_clock(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> list[float]:
    """Give modules a clock that moves only when somebody sleeps; returns the pauses."""
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append, monotonic=lambda: 1000.0 + sum(pauses))
    for module in modules:
        monkeypatch.setattr(module, "time", clock)
    return pauses
