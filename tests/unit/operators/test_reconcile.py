"""The reconciler over a cluster in memory that keeps what is applied and plays the job."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes import client

from operators.cluster import Cluster
from operators.reconcile import Reconciler
from pyfsb.resources.status import Phase
from tests.unit.operators.test_gang import make_run, make_settings

RESULT = json.dumps({"record": "s3://bucket/demo/training", "digest": "sha256:1"})


@dataclass
class FakeCluster:
    """What the API server would hold."""

    resource: dict[str, Any] | None
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pods: list[client.V1Pod] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def get(self, _version: str, kind: str, _namespace: str, name: str) -> dict[str, Any] | None:
        if self.resource and kind == self.resource["kind"]:
            return copy.deepcopy(self.resource)
        return copy.deepcopy(self.objects.get((kind, name)))

    def list_pods(self, _namespace: str, _run: str) -> list[client.V1Pod]:
        return self.pods

    def apply(self, manifest: dict[str, Any], owner: dict[str, Any]) -> dict[str, Any]:
        whole = copy.deepcopy(manifest)
        whole["metadata"]["uid"] = "job-uid"
        whole["metadata"]["ownerReferences"] = [{"uid": owner["metadata"]["uid"]}]
        self.objects[whole["kind"], whole["metadata"]["name"]] = whole
        self.writes.append(f"apply {whole['kind']}")
        return whole

    def delete(self, _version: str, kind: str, _namespace: str, name: str, uid: str) -> None:
        assert self.objects[kind, name]["metadata"]["uid"] == uid
        del self.objects[kind, name]
        self.writes.append(f"delete {kind}")

    def patch_status(self, _kind: str, _namespace: str, _name: str, status: dict[str, Any]) -> None:
        assert self.resource
        self.resource["status"] = {**self.resource.get("status", {}), **status}
        self.writes.append("status")

    def tell(self, _owner: dict[str, Any], *, reason: str, message: str, is_warning: bool) -> None:
        self.events.append(f"{'!' if is_warning else ''}{reason}: {message}")


def make_pod(name: str, uid: str, **state: Any) -> client.V1Pod:
    status = SimpleNamespace(
        name="pytorch",
        state=client.V1ContainerState(**(state or {"running": client.V1ContainerStateRunning()})),
    )
    return cast(
        "client.V1Pod",
        SimpleNamespace(
            metadata=SimpleNamespace(name=name, uid=uid),
            status=SimpleNamespace(
                phase="Running", container_statuses=[status], init_container_statuses=None,
                conditions=None, reason=None, message=None,
            ),
        ),
    )  # fmt: skip


def ended(code: int, message: str = "") -> client.V1ContainerStateTerminated:
    return client.V1ContainerStateTerminated(exit_code=code, message=message)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(
        {
            "apiVersion": "fengshenbang.io/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": "demo", "namespace": "team", "uid": "u", "generation": 1},
            "spec": {"run": make_run(), "nodes": 2},
        }
    )  # fmt: skip


class Clock:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def look(cluster: FakeCluster) -> Phase | None:
    reconciler = Reconciler(
        cluster=cast("Cluster", cluster), settings=make_settings(), clock=Clock()
    )
    return reconciler.reconcile("TrainingRun", "team", "demo")


def status(cluster: FakeCluster) -> dict[str, Any]:
    assert cluster.resource
    return cast("dict[str, Any]", cluster.resource["status"])


def test_from_nothing_to_success(cluster: FakeCluster) -> None:
    assert look(cluster) is Phase.STARTING
    assert cluster.writes == ["apply ConfigMap", "apply PyTorchJob", "status"]
    cluster.pods = [make_pod("m", "1"), make_pod("w", "2")]
    assert look(cluster) is Phase.RUNNING
    assert status(cluster)["podUids"] == ["1", "2"]
    assert status(cluster)["model"] == "Wenzhong-GPT2-110M"
    cluster.pods = [make_pod("m", "1", terminated=ended(0, RESULT))]
    cluster.objects["PyTorchJob", "demo"]["status"] = {
        "conditions": [{"type": "Succeeded", "status": "True"}]
    }
    assert look(cluster) is Phase.SUCCEEDED
    found = status(cluster)
    assert (found["record"], found["digest"]) == ("s3://bucket/demo/training", "sha256:1")
    assert found["completionTime"]
    assert [c["status"] for c in found["conditions"] if c["type"] == "Succeeded"] == ["True"]


def test_a_second_look_writes_nothing(cluster: FakeCluster) -> None:
    look(cluster)
    cluster.pods = [make_pod("m", "1"), make_pod("w", "2")]
    look(cluster)
    before = copy.deepcopy(status(cluster))
    cluster.writes.clear()
    for _ in range(3):
        look(cluster)
    assert cluster.writes == []
    assert status(cluster) == before


def test_a_new_operator_goes_on_with_a_restart(cluster: FakeCluster) -> None:
    look(cluster)
    cluster.pods = [make_pod("m", "1"), make_pod("w", "2")]
    look(cluster)
    cluster.pods = [make_pod("m", "1"), make_pod("w", "3")]
    assert look(cluster) is Phase.RESTARTING
    assert cluster.objects["PyTorchJob", "demo"]["spec"]["runPolicy"]["suspend"] is True
    assert look(cluster) is Phase.RESTARTING
    cluster.pods = []
    assert look(cluster) is Phase.STARTING
    assert cluster.objects["PyTorchJob", "demo"]["spec"]["runPolicy"]["suspend"] is False
    cluster.pods = [make_pod("m", "4"), make_pod("w", "5")]
    assert look(cluster) is Phase.RUNNING
    assert status(cluster)["restarts"] == 1
    assert cluster.events == [
        "Started: pods are made", "Running: 2 pods run", "!GangRestart: w was replaced",
        "Started: pods are made", "Running: 2 pods run",
    ]  # fmt: skip


def test_a_permanent_error_carries_the_last_lines(cluster: FakeCluster) -> None:
    look(cluster)
    lines = "DataError: s3://bucket/demo/data/corpus/record.json: no such object"
    cluster.pods = [make_pod("m", "1", terminated=ended(3, lines)), make_pod("w", "2")]
    assert look(cluster) is Phase.FAILED
    assert status(cluster)["message"] == f"m ended with exit code 3: {lines}"
    assert cluster.objects["PyTorchJob", "demo"]["spec"]["runPolicy"]["suspend"] is True


def test_what_cannot_be_carried_out_is_invalid_and_may_be_mended(cluster: FakeCluster) -> None:
    assert cluster.resource
    cluster.resource["spec"]["pool"] = "a10"
    assert look(cluster) is Phase.INVALID
    assert "unknown node pool 'a10'" in status(cluster)["message"]
    assert len(cluster.events) == 1
    look(cluster)
    assert len(cluster.events) == 1
    cluster.resource["spec"]["pool"] = "default"
    cluster.resource["metadata"]["generation"] = 2
    assert look(cluster) is Phase.STARTING
    assert [c["status"] for c in status(cluster)["conditions"] if c["type"] == "Valid"] == ["True"]


def test_a_job_of_somebody_else_is_not_touched(cluster: FakeCluster) -> None:
    cluster.objects["PyTorchJob", "demo"] = {"metadata": {"uid": "x"}, "spec": {}}
    assert look(cluster) is Phase.INVALID
    assert "of somebody else is in the way" in status(cluster)["message"]
    assert cluster.writes == ["status"]


def test_the_scores_of_an_evaluation_reach_its_status(cluster: FakeCluster) -> None:
    assert cluster.resource
    cluster.resource["kind"] = "Evaluation"
    score = {
        "task": "tnews", "runner": "finetune", "value": "0.3", "interval": "0.2-0.4",
        "majority": "0.1", "numRows": 300,
    }  # fmt: skip
    gate = {"passed": True, "reason": "0.3 is above 0.1"}
    message = json.dumps({"record": "s3://r", "digest": "d", "gate": gate, "scores": [score]})
    reconciler = Reconciler(
        cluster=cast("Cluster", cluster), settings=make_settings(), clock=Clock()
    )
    reconciler.reconcile("Evaluation", "team", "demo")
    cluster.pods = [make_pod("m", "1", terminated=ended(0, message))]
    cluster.objects["PyTorchJob", "demo"]["status"] = {
        "conditions": [{"type": "Succeeded", "status": "True"}]
    }
    assert reconciler.reconcile("Evaluation", "team", "demo") is Phase.SUCCEEDED
    found = status(cluster)
    assert (found["gatePassed"], found["gateReason"]) == (True, "0.3 is above 0.1")
    assert found["scores"] == [score]


def test_a_workflow_that_is_gone_ends_its_run(cluster: FakeCluster) -> None:
    assert cluster.resource
    cluster.resource["spec"]["stopsWith"] = {"workflow": "flow", "uid": "f"}
    cluster.objects["Workflow", "flow"] = {"metadata": {"uid": "f"}, "status": {"phase": "Running"}}
    assert look(cluster) is Phase.STARTING
    cluster.objects["Workflow", "flow"]["status"]["phase"] = "Failed"
    assert look(cluster) is Phase.FAILED
    assert cluster.objects["PyTorchJob", "demo"]["spec"]["runPolicy"]["suspend"] is True


def test_a_resource_that_is_gone_is_forgotten(cluster: FakeCluster) -> None:
    cluster.resource = None
    assert look(cluster) is None
