from __future__ import annotations

from typing import Any

import pytest

from pipelines.stopping import find_stopper, is_repeated, read_own_pod
from pyfsb.errors import ClusterError

WORKFLOW = {
    "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "fsb-pretrain-x2", "uid": "u1",
    "controller": True,
}  # fmt: skip


class Cluster:
    """Knows one pod."""

    namespace = "team"

    def get(self, path: str) -> dict[str, Any] | None:
        return pod() if path == "/api/v1/namespaces/team/pods/launcher" else None


def pod(node: str = "x2.root.train.executor(0)", owners: Any = (WORKFLOW,)) -> dict[str, Any]:
    annotations = {"workflows.argoproj.io/node-name": node}
    return {"metadata": {"annotations": annotations, "ownerReferences": list(owners)}}


def test_outside_of_a_task_there_is_no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSB_POD_NAME", raising=False)
    assert read_own_pod(Cluster()) is None  # type: ignore[arg-type]
    assert find_stopper(None) is None
    assert not is_repeated(None)


def test_the_workflow_that_owns_the_pod_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_POD_NAME", "launcher")
    found = read_own_pod(Cluster())  # type: ignore[arg-type]
    assert find_stopper(found) == {"workflow": "fsb-pretrain-x2", "uid": "u1"}


def test_a_pod_that_is_not_shown_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_POD_NAME", "other")
    with pytest.raises(ClusterError, match="namespace team has no pod other"):
        read_own_pod(Cluster())  # type: ignore[arg-type]


def test_other_owners_do_not_count() -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "u"}
    theirs = {"apiVersion": "example.com/v1", "kind": "Workflow", "name": "x", "uid": "u"}
    assert find_stopper(pod(owners=[job, theirs])) is None
    assert find_stopper({"metadata": {}}) is None


@pytest.mark.parametrize(
    ("node", "expected"),
    [("x.root.train.executor(0)", False), ("x.root.train.executor(2)", True), ("x.train", False)],
)
def test_argo_numbers_the_tries(node: str, expected: bool) -> None:
    assert is_repeated(pod(node)) is expected
