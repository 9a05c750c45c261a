# SPDX-License-Identifier: Apache-2.0
"""The only caller of the API server: reads what is there, applies what should be.

Every write is a server-side apply under one field manager with an owner reference, or a status
patch; a wish that is already fulfilled writes nothing. Errors of the API become ours.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import urllib3
from kubernetes import client, config, dynamic
from kubernetes.client.exceptions import ApiException

from pyfsb.errors import ClusterError, ConfigError, NotReadyError
from pyfsb.resources import API_VERSION
from pyfsb.schema import Json

FIELD_MANAGER: Final = "fengshenbang-operator"
_TIMEOUT_SECONDS: Final = 20
_UNKNOWN_FIELD: Final = "field not declared in schema"
"""A server-side apply with a field that the CRD does not know is answered with 500."""
_WEBHOOK_AWAY: Final = "failed calling webhook"
"""What is answered, with 500 too, while whoever provides a kind does not answer himself."""
_REFUSALS: Final = (400, 403, 422)
"""Answers that another try does not change by itself: invalid, forbidden, out of quota."""
_log = logging.getLogger(__name__)


class RefusedError(ClusterError):
    """The API server does not take an object as it is; only another object or rule helps."""


class MissingKindError(ClusterError):
    """The cluster has no such kind: whoever serves it is not installed."""


class Cluster:
    """One connection; threads may share it."""

    def __init__(self, api: client.ApiClient | None = None) -> None:
        """Connect with the pod's service account, else with KUBECONFIG.

        Raises:
            ConfigError: Neither is there.
        """
        self._api = api or _connect()
        self._core = client.CoreV1Api(self._api)
        self._dynamic = dynamic.DynamicClient(self._api)

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        """Return an object, or None."""
        with _explained(f"read {kind} {namespace}/{name}"):
            try:
                found: Json = (
                    self._of(api_version, kind)
                    .get(name=name, namespace=namespace, _request_timeout=_TIMEOUT_SECONDS)
                    .to_dict()
                )
            except ApiException as exc:
                if exc.status == 404:
                    return None
                raise
            return found

    def list_phases(
        self, api_version: str, kind: str, namespaces: Sequence[str]
    ) -> dict[tuple[str, str], str | None]:
        """Return the phase in the status of every object of a kind, by namespace and name.

        Args:
            api_version: Group and version.
            kind: Its kind.
            namespaces: Where to look; none means everywhere.
        """
        found: dict[tuple[str, str], str | None] = {}
        with _explained(f"list every {kind}"):
            for namespace in namespaces or (None,):
                # Read as it is: making objects of thousands of run specs takes seconds.
                answer = self._of(api_version, kind).get(
                    namespace=namespace, serialize=False, _request_timeout=_TIMEOUT_SECONDS
                )
                for item in json.loads(answer.data)["items"]:
                    metadata = item["metadata"]
                    phase = (item.get("status") or {}).get("phase")
                    found[metadata["namespace"], metadata["name"]] = phase
        return found

    def list_pods(self, namespace: str, label: str, value: str) -> list[client.V1Pod]:
        """Return the pods that have a label."""
        with _explained(f"list the pods of {namespace}/{value}"):
            pods: list[client.V1Pod] = self._core.list_namespaced_pod(
                namespace, label_selector=f"{label}={value}", _request_timeout=_TIMEOUT_SECONDS
            ).items
            return pods

    def list_events(
        self, namespace: str, *, uid: str | None = None, reason: str | None = None
    ) -> list[client.CoreV1Event]:
        """Return the events about an object, or those with a reason, oldest first.

        They explain, and nothing depends on them: a failure is logged, not raised.
        """
        wanted = {"involvedObject.uid": uid, "reason": reason}
        selector = ",".join(f"{key}={value}" for key, value in wanted.items() if value)
        try:
            events: list[client.CoreV1Event] = self._core.list_namespaced_event(
                namespace, field_selector=selector, _request_timeout=_TIMEOUT_SECONDS
            ).items
        except (ApiException, urllib3.exceptions.HTTPError) as exc:
            _log.warning("cannot read events: %s", exc)
            return []
        return sorted(events, key=event_time)

    def review_token(self, token: str, audience: str) -> Json:
        """Return the status of a TokenReview: whose a token is."""
        api_version, kind = "authentication.k8s.io/v1", "TokenReview"
        body = {
            "apiVersion": api_version, "kind": kind,
            "spec": {"token": token, "audiences": [audience]},
        }  # fmt: skip
        with _explained("review a token"):
            found: Json = (
                self._of(api_version, kind)
                .create(body=body, _request_timeout=_TIMEOUT_SECONDS)
                .to_dict()
            )
            return found.get("status") or {}

    def apply(self, manifest: Json, owner: Json) -> Json:
        """Apply a manifest, owned by a custom resource and gone with it.

        Raises:
            RefusedError: The API server or one of its webhooks does not take it as it is, for
                instance because the installed CRD has no such field.
            MissingKindError: The cluster has no such kind.
        """
        metadata = {**manifest["metadata"], "ownerReferences": [owner_reference(owner)]}
        whole = {**manifest, "metadata": metadata}
        name = f"{whole['kind']} {metadata.get('namespace')}/{metadata['name']}"
        with _explained(f"apply {name}"):
            applied: Json = (
                self._of(whole["apiVersion"], whole["kind"])
                .server_side_apply(
                    body=whole, name=metadata["name"], namespace=metadata.get("namespace"),
                    field_manager=FIELD_MANAGER, force_conflicts=True,
                    query_params=[("fieldValidation", "Strict")],
                    _request_timeout=_TIMEOUT_SECONDS,
                )
                .to_dict()
            )  # fmt: skip
            return applied

    def delete(self, api_version: str, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete one incarnation of an object; nothing happens when it is not there any more."""
        options = {
            "preconditions": {"uid": uid}, "propagationPolicy": "Background",
            "apiVersion": "v1", "kind": "DeleteOptions",
        }  # fmt: skip
        with _explained(f"delete {kind} {namespace}/{name}"):
            try:
                self._of(api_version, kind).delete(
                    name=name, namespace=namespace, body=options,
                    _request_timeout=_TIMEOUT_SECONDS,
                )  # fmt: skip
            except ApiException as exc:
                if exc.status not in (404, 409):
                    raise

    def patch_status(self, kind: str, namespace: str, name: str, status: Json) -> None:
        """Merge into the status of a custom resource."""
        with _explained(f"report the status of {kind} {namespace}/{name}"):
            self._of(API_VERSION, kind).status.patch(
                body={"status": status}, name=name, namespace=namespace,
                content_type="application/merge-patch+json", _request_timeout=_TIMEOUT_SECONDS,
            )  # fmt: skip

    def tell(self, owner: Json, *, reason: str, message: str, is_warning: bool) -> None:
        """Record an event about a custom resource; a failure is logged, not raised."""
        metadata = owner["metadata"]
        reference = {
            key: owner_reference(owner)[key] for key in ("apiVersion", "kind", "name", "uid")
        }
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        body = {
            "metadata": {
                "generateName": f"{metadata['name']}.", "namespace": metadata["namespace"],
            },
            "involvedObject": {**reference, "namespace": metadata["namespace"]},
            "reason": reason, "message": message[:1000], "count": 1,
            "type": "Warning" if is_warning else "Normal",
            "source": {"component": FIELD_MANAGER}, "firstTimestamp": now, "lastTimestamp": now,
        }  # fmt: skip
        try:
            self._core.create_namespaced_event(
                metadata["namespace"], body, _request_timeout=_TIMEOUT_SECONDS
            )
        except (ApiException, urllib3.exceptions.HTTPError) as exc:
            _log.warning("cannot record an event: %s", exc)

    def _of(self, api_version: str, kind: str) -> Any:
        return self._dynamic.resources.get(api_version=api_version, kind=kind)


def owner_reference(owner: Json) -> Json:
    """Return the reference that ties an object to a custom resource."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def is_owned_by(manifest: Json, owner: Json) -> bool:
    """Say whether an object belongs to a custom resource, this incarnation of it."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in owners)


def check_owner(found: Json | None, owner: Json) -> None:
    """Check that an object with our name is ours.

    Raises:
        NotReadyError: It belongs to a deleted resource of the same name, and goes after it.
        ConfigError: It is somebody else's.
    """
    if found is None or is_owned_by(found, owner):
        return
    what = f"{found['kind']} {found['metadata']['name']}"
    owners = found["metadata"].get("ownerReferences") or []
    if any(
        (reference.get("kind"), reference.get("name")) == (owner["kind"], owner["metadata"]["name"])
        for reference in owners
    ):
        raise NotReadyError(f"the {what} of the deleted {owner['kind']} is not gone yet")
    article = "an" if what[0] in "AEIOU" else "a"
    raise ConfigError(f"{article} {what} of somebody else is in the way; use another name")


def event_time(event: client.CoreV1Event) -> datetime:
    """Return when an event happened last; which field says so depends on who recorded it."""
    series = event.series.last_observed_time if event.series else None
    moments = (
        series, event.last_timestamp, event.event_time, event.metadata.creation_timestamp,
    )  # fmt: skip
    return next((moment for moment in moments if moment), datetime.min.replace(tzinfo=UTC))


def _connect() -> client.ApiClient:
    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except config.ConfigException as exc:
            raise ConfigError(f"no cluster: {exc}; set KUBECONFIG") from None
    return client.ApiClient()


@contextlib.contextmanager
def _explained(action: str) -> Iterator[None]:
    try:
        yield
    except ApiException as exc:
        words = _words(exc)
        is_refusal = exc.status in _REFUSALS or any(
            text in words for text in (_UNKNOWN_FIELD, _WEBHOOK_AWAY)
        )
        error = RefusedError if is_refusal else ClusterError
        raise error(f"cannot {action}: {exc.status} {exc.reason}: {words}") from None
    except dynamic.exceptions.ResourceNotFoundError:
        raise MissingKindError(f"cannot {action}: the cluster has no such kind") from None
    except urllib3.exceptions.HTTPError as exc:
        raise ClusterError(f"cannot {action}: {type(exc).__name__}: {exc}") from None


def _words(exc: ApiException) -> str:
    """Return what the API server says, without headers."""
    try:
        return str(json.loads(exc.body)["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return str(exc.body)[:200]
