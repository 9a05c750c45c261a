# SPDX-License-Identifier: Apache-2.0
"""The only door of pyfsb to a Kubernetes API server: paths and plain JSON in, our errors out.

Called by the cluster engine, `fsb get|logs|stop|doctor` and pipelines' components. Needs no
discovery and keeps nothing on disk; the kubernetes package is imported when a connection is made.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from pyfsb.errors import ClusterError, ConfigError, DataError, FsbError, NotReadyError
from pyfsb.resources import GROUP, KINDS, VERSION
from pyfsb.schema import Json

FIELD_MANAGER: Final = "fsb"
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_TIMEOUT_SECONDS: Final = 20
_PAGE: Final = 500
_BUSY: Final = (503, 504)
_UNKNOWN_FIELD: Final = "failed to create typed patch object"
"""An apply with a field that the CRD does not have is answered with 500 (seen with 1.35)."""
_PLURALS: Final = {kind.kind: kind.plural for kind in KINDS}
_log = logging.getLogger(__name__)


def resource_path(kind: str, namespace: str | None, name: str = "") -> str:
    """Return the API path of one of our resources, or of all of a kind.

    Args:
        kind: One of our kinds.
        namespace: None means every namespace.
        name: Empty for the list.
    """
    place = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}/{place}{_PLURALS[kind]}/{name}".rstrip("/")


class ClusterClient:
    """One connection to an API server."""

    def __init__(self, api: Any, *, namespace: str, is_inside: bool = False) -> None:
        """Wrap a connected client.

        Args:
            api: A `kubernetes.client.ApiClient`.
            namespace: Where names without a namespace are looked for.
            is_inside: This process runs in a pod of that cluster and reaches its services.
        """
        self._api = api
        self.namespace = namespace
        self.is_inside = is_inside

    def get(self, path: str) -> Json | None:
        """Return an object, or None when there is none at that path.

        Raises:
            ConfigError: The cluster refuses this user.
            ClusterError: The API server failed or cannot be reached.
        """
        return _decode(self._send("GET", path))

    def read_text(self, path: str, query: Mapping[str, str]) -> str | None:
        """Return a text, such as a pod's log, or None when there is none."""
        answer = self._send("GET", path, query=query)
        return None if answer is None else answer.decode("utf-8", "replace")

    def list_objects(self, path: str, *, labels: str = "") -> list[Json]:
        """Return every object below a path, page by page.

        Raises:
            ConfigError: The cluster does not know such objects, or refuses this user.
            ClusterError: As `get`.
        """
        query = {"limit": str(_PAGE), **({"labelSelector": labels} if labels else {})}
        found: list[Json] = []
        while True:
            page = _decode(self._send("GET", path, query=query))
            if page is None:
                raise ConfigError(
                    f"the cluster has no {path.rpartition('/')[2]}; is the chart installed? "
                    "`fsb doctor cluster` tells what is missing"
                )
            found += page.get("items") or []
            rest = (page.get("metadata") or {}).get("continue")
            if not rest:
                return found
            query["continue"] = rest

    def apply(self, path: str, manifest: Json) -> Json:
        """Make an object what a manifest says (server-side apply), without taking fields away.

        Raises:
            ConfigError: The API server refuses it; carries its words.
            ClusterError: As `get`.
        """
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        content = "application/apply-patch+yaml"
        try:
            answer = self._call("PATCH", path, query=query, body=manifest, content=content)
        except _RefusedError as exc:
            if exc.status == 404:  # the namespace, or the kind
                raise ConfigError(
                    f"the cluster refuses it: {exc.words[:300]}; choose a namespace with -n, "
                    "`fsb doctor cluster` tells what is missing"
                ) from None
            raise _explain(exc, "PATCH", path) from None
        return _found(_decode(answer), path)

    def merge(self, path: str, patch: Json) -> Json | None:
        """Change some fields of an object; None when there is none."""
        # A manager of its own: what `apply` leaves out stays as it was set here.
        query = {"fieldManager": f"{FIELD_MANAGER}-set"}
        content = "application/merge-patch+json"
        return _decode(self._send("PATCH", path, query=query, body=patch, content=content))

    def create(self, path: str, body: Json) -> Json:
        """Post an object, such as a question about one's rights, and return the answer."""
        return _found(_decode(self._send("POST", path, body=body)), path)

    def delete(self, path: str, uid: str) -> None:
        """Delete one incarnation of an object and what it owns; fine when it is gone."""
        options = {
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }  # fmt: skip
        self._send("DELETE", path, body=options)

    def ask_service(
        self, service: str, port: int, path: str, body: Json, *, timeout_seconds: float
    ) -> Json:
        """Post to a service through the API server, which reaches it from anywhere.

        Raises:
            NotReadyError: The service has no ready pod, is busy or gave no answer in time.
            DataError: The service refused the request; carries its words.
            ConfigError: This user may not use the proxy.
        """
        whole = f"/api/v1/namespaces/{self.namespace}/services/http:{service}:{port}/proxy{path}"
        try:
            answer = self._call("POST", whole, body=body, timeout_seconds=timeout_seconds)
        except _RefusedError as exc:
            if exc.status in (401, 403):
                raise _explain(exc, "POST", whole) from None
            kind = NotReadyError if exc.status in _BUSY else DataError
            raise kind(f"service {service} answered {exc.status}: {exc.words[:200]}") from None
        except ClusterError as exc:
            raise NotReadyError(str(exc)) from None
        return _found(_decode(answer), whole)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content: str = "application/json",
    ) -> bytes | None:
        """Send a request; None stands for 404."""
        try:
            return self._call(method, path, query=query, body=body, content=content)
        except _RefusedError as exc:
            if exc.status == 404:
                return None
            raise _explain(exc, method, path) from None

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content: str = "application/json",
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> bytes:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        try:
            # Read by ourselves: the package would take a log line that is JSON for an object.
            answer = self._api.call_api(
                f"{path}?{urlencode(query)}" if query else path, method, body=body,
                header_params={"Accept": "application/json, */*", "Content-Type": content},
                auth_settings=["BearerToken"], _return_http_data_only=True,
                _preload_content=False, _request_timeout=(5, timeout_seconds),
            )  # fmt: skip
        except ApiException as exc:
            if exc.status:
                raise _RefusedError(exc.status, _words(exc)) from None
            raise ClusterError(f"cannot reach the cluster: {exc.reason}") from None
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            host = self._api.configuration.host
            raise ClusterError(f"cannot reach the cluster at {host}: {_short(exc)}") from None
        data: bytes = answer.data
        return data


def connect(namespace: str | None = None) -> ClusterClient:
    """Connect with KUBECONFIG if it is set, else as the pod this is, else with ~/.kube/config.

    Args:
        namespace: None takes FSB_NAMESPACE, else the pod's or the kubeconfig's.

    Raises:
        ConfigError: No cluster is configured, or the kubernetes package is not installed.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise ConfigError(
            "the kubernetes package is not installed; pip install 'fengshenbang[cluster]'"
        ) from None
    settings = client.Configuration()
    is_inside = is_in_pod()
    try:
        if is_inside:
            config.load_incluster_config(client_configuration=settings)
            own = Path(_ACCOUNT, "namespace").read_text(encoding="utf-8").strip()
        else:
            place = os.environ.get("KUBECONFIG") or None
            config.load_kube_config(config_file=place, client_configuration=settings)
            own = config.list_kube_config_contexts(place)[1]["context"].get("namespace", "")
    except (
        config.ConfigException,
        yaml.YAMLError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
    ) as exc:
        words = " ".join(str(exc).split())
        raise ConfigError(
            f"no cluster: {words}; set KUBECONFIG to the file that the cluster's owner gave you"
        ) from None
    settings.retries = False  # `patiently` tries again, and says so
    chosen = namespace or os.environ.get("FSB_NAMESPACE") or own or "default"
    return ClusterClient(client.ApiClient(settings), namespace=chosen, is_inside=is_inside)


def is_in_pod() -> bool:
    """Say whether the cluster is the one that this process runs in."""
    if os.environ.get("KUBECONFIG"):
        return False
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and Path(_ACCOUNT, "token").is_file()


def is_configured() -> bool:
    """Say whether anything names a cluster; nothing is contacted."""
    default = Path("~/.kube/config").expanduser()
    return bool(os.environ.get("KUBECONFIG")) or is_in_pod() or default.is_file()


def known_names(objects: Iterable[Json]) -> list[str]:
    """Return the names of objects, sorted."""
    return sorted(item["metadata"]["name"] for item in objects)


class _RefusedError(Exception):
    """The API server, or the service behind it, answered with an error."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


def _explain(error: _RefusedError, method: str, path: str) -> FsbError:
    words = error.words[:1500]
    if error.status in (400, 409, 422) or _UNKNOWN_FIELD in words:
        return ConfigError(f"the cluster refuses it: {words}")
    if error.status == 401:
        return ConfigError(f"the cluster does not know this user ({words}); log in again")
    if error.status == 403:
        return ConfigError(f"this user may not: {words}; ask the cluster's owner for that right")
    return ClusterError(f"{method} {path}: the API server answered {error.status}: {words[:300]}")


def _words(exc: Any) -> str:
    """Return what the API server says, without headers."""
    body = exc.body or b""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
    try:
        value = json.loads(text)
        return str(value.get("message") or value.get("error") or text)
    except (ValueError, AttributeError):
        return text or str(exc.reason)


def _short(exc: Exception) -> str:
    return str(exc).rpartition(": ")[2][:200] or type(exc).__name__


def _decode(answer: bytes | None) -> Json | None:
    if answer is None:
        return None
    value: Json = json.loads(answer)
    return value


def _found(value: Json | None, path: str) -> Json:
    if value is None:
        raise ConfigError(f"the cluster has nothing at {path}; `fsb doctor cluster` tells why")
    return value
