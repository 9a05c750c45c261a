"""What is asked of the API server, and what its answers mean."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes import client, dynamic
from kubernetes.client.exceptions import ApiException

from operators.cluster import Cluster, MissingKindError, RefusedError, is_owned_by
from pyfsb.errors import ClusterError

OWNER = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "namespace": "n", "uid": "u"}}
MANIFEST = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "n"}}


class Api:
    """Stands for the dynamic client and for one kind of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: dict[str, Any] = {}
        self.resources = self

    def get(self, **_: Any) -> Api:
        if isinstance(self.error, dynamic.exceptions.ResourceNotFoundError):
            raise self.error
        return self

    def server_side_apply(self, **asked: Any) -> Any:
        self.asked = asked
        if self.error:
            raise self.error
        return SimpleNamespace(to_dict=lambda: asked["body"])


def connect(api: Api) -> Cluster:
    cluster = object.__new__(Cluster)
    cluster._dynamic = api
    return cluster


def answer(status: int, message: str) -> ApiException:
    error = ApiException(status=status, reason="Reason")
    error.body = json.dumps({"message": message})
    return error


def test_applying_is_strict_and_ties_to_the_owner() -> None:
    api = Api()
    applied = connect(api).apply(MANIFEST, OWNER)
    assert api.asked["query_params"] == [("fieldValidation", "Strict")]
    assert api.asked["force_conflicts"] is True
    assert is_owned_by(applied, OWNER)
    assert not is_owned_by(MANIFEST, OWNER)
    assert "ownerReferences" not in MANIFEST["metadata"]


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (answer(422, "is invalid"), RefusedError, "422 Reason: is invalid"),
        (answer(403, "exceeded quota"), RefusedError, "exceeded quota"),
        (answer(500, ".spec.x: field not declared in schema"), RefusedError, ".spec.x"),
        (answer(500, 'failed calling webhook "v": connection refused'), RefusedError, "webhook"),
        (answer(500, "etcd is away"), ClusterError, "etcd is away"),
        (answer(429, "later"), ClusterError, "429"),
        (dynamic.exceptions.ResourceNotFoundError("x"), MissingKindError, "no such kind"),
    ],
)
def test_answers_have_a_meaning(error: Exception, expected: type[Exception], words: str) -> None:
    with pytest.raises(ClusterError, match="cannot apply Thing n/t") as caught:
        connect(Api(error)).apply(MANIFEST, OWNER)
    assert type(caught.value) is expected
    assert words in str(caught.value)


def test_phases_are_listed_without_making_objects() -> None:
    items = [
        {"metadata": {"namespace": "n", "name": "a"}, "status": {"phase": "Failed"}},
        {"metadata": {"namespace": "n", "name": "b"}},
    ]

    class Listing(Api):
        def get(self, **asked: Any) -> Any:
            self.asked = asked
            if "serialize" not in asked:
                return self
            return SimpleNamespace(data=json.dumps({"items": items}))

    found = connect(Listing()).list_phases("v1", "Thing", ("n",))
    assert found == {("n", "a"): "Failed", ("n", "b"): None}


def test_events_come_oldest_first_whoever_recorded_them() -> None:
    def event(name: str, **moments: Any) -> client.CoreV1Event:
        return client.CoreV1Event(
            involved_object=client.V1ObjectReference(), reason=name,
            metadata=client.V1ObjectMeta(creation_timestamp=datetime(2026, 1, 1, tzinfo=UTC)),
            **moments,
        )  # fmt: skip

    asked: dict[str, Any] = {}

    def list_namespaced_event(_namespace: str, **more: Any) -> Any:
        asked.update(more)
        later = datetime(2026, 1, 2, tzinfo=UTC)
        return SimpleNamespace(items=[event("new", event_time=later), event("old")])

    cluster = connect(Api())
    cluster._core = cast("Any", SimpleNamespace(list_namespaced_event=list_namespaced_event))
    found = cluster.list_events("n", uid="u", reason="FailedCreate")
    assert [item.reason for item in found] == ["old", "new"]
    assert asked["field_selector"] == "involvedObject.uid=u,reason=FailedCreate"

    def refuse(_namespace: str, **_: Any) -> Any:
        raise answer(403, "forbidden")

    cluster._core = cast("Any", SimpleNamespace(list_namespaced_event=refuse))
    assert cluster.list_events("n") == [], "a run goes on without explanations"


def test_a_token_is_reviewed_for_its_audience_and_a_failure_is_ours() -> None:
    class Reviewing(Api):
        def create(self, *, body: Any, **_: Any) -> Any:
            if self.error:
                raise self.error
            self.asked = body["spec"]
            return SimpleNamespace(to_dict=lambda: {"status": {"authenticated": True}})

    api = Reviewing()
    assert connect(api).review_token("secret", "aud") == {"authenticated": True}
    assert api.asked == {"token": "secret", "audiences": ["aud"]}
    with pytest.raises(ClusterError, match="cannot review a token") as caught:
        connect(Reviewing(answer(500, "etcd is away"))).review_token("secret", "aud")
    assert "secret" not in str(caught.value)
