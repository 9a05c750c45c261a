"""What is asked of the API server, and what its answers mean."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import dynamic
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
