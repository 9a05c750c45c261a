"""The ServedModel's reconciler over a cluster in memory."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes import client

from operators.cluster import MissingKindError
from operators.reconcile import Reconciler
from operators.served.observe import read_copies, read_service, read_url
from pyfsb import versions
from pyfsb.resources.status import Phase
from tests.helpers.versions import gate, put_version
from tests.unit.operators.test_reconcile import FakeCluster, make_event, make_reconciler

PASSED = {
    "phase": "Succeeded", "gatePassed": True, "gateReason": "0.9 above 0.5",
    "servedCheckpoint": "s3://bucket/run/evaluation/t/finetune-42", "servedDigest": "sha256:1",
}  # fmt: skip


def make_cluster(**spec: Any) -> FakeCluster:
    return FakeCluster(
        {
            "apiVersion": "fengshenbang.io/v1alpha1", "kind": "ServedModel",
            "metadata": {"name": "sentiment", "namespace": "team", "uid": "u", "generation": 1},
            "spec": spec or {"evaluation": "scored"},
        }
    )  # fmt: skip


@pytest.fixture
def cluster() -> FakeCluster:
    return make_cluster()


def judge(cluster: FakeCluster, **status: Any) -> None:
    cluster.objects["Evaluation", "scored"] = {
        "kind": "Evaluation", "metadata": {"uid": "e"}, "status": status,
    }  # fmt: skip


def look(cluster: FakeCluster, reconciler: Reconciler | None = None) -> Phase | None:
    found = (reconciler or make_reconciler(cluster)).reconcile("ServedModel", "team", "sentiment")
    isvc = cluster.objects.get(("InferenceService", "sentiment"))
    if isvc and "status" not in isvc:  # KServe starts what it was asked for
        isvc["status"] = {"observedGeneration": None}
    return found


def status(cluster: FakeCluster) -> dict[str, Any]:
    assert cluster.resource
    return cast("dict[str, Any]", cluster.resource["status"])


def condition(cluster: FakeCluster, name: str) -> tuple[str, str]:
    (found,) = (c for c in status(cluster)["conditions"] if c["type"] == name)
    return found["status"], found["reason"]


def start_copies(cluster: FakeCluster, *names: str, is_ready: bool = True) -> None:
    isvc = cluster.objects["InferenceService", "sentiment"]
    annotations = isvc["spec"]["predictor"]["annotations"]
    ready = "True" if is_ready else "False"
    cluster.pods = [make_pod(name, annotations, ready=ready) for name in names]
    isvc["status"] = {
        "conditions": [{"type": "Ready", "status": ready}],
        "address": {"url": "http://sentiment-predictor.team.svc.cluster.local"},
    }


def make_pod(
    name: str, annotations: dict[str, str], *, ready: str = "False", **status: Any
) -> client.V1Pod:
    conditions = [SimpleNamespace(type="Ready", status=ready, reason=None, message=None)]
    fields = {
        "phase": "Running", "reason": None, "message": None, "conditions": conditions,
        "init_container_statuses": None, "container_statuses": None, **status,
    }  # fmt: skip
    metadata = SimpleNamespace(
        name=name, uid=f"uid-{name}", annotations=annotations, deletion_timestamp=None
    )
    return cast(
        "client.V1Pod", SimpleNamespace(metadata=metadata, status=SimpleNamespace(**fields))
    )


def test_from_waiting_to_ready(cluster: FakeCluster) -> None:
    assert look(cluster) is Phase.PENDING
    assert condition(cluster, "GatePassed") == ("Unknown", "EvaluationMissing")
    judge(cluster, phase="Running")
    assert look(cluster) is Phase.PENDING
    assert "InferenceService" not in {kind for kind, _ in cluster.objects}
    judge(cluster, **PASSED)
    assert look(cluster) is Phase.STARTING
    start_copies(cluster, "a", "b")
    assert look(cluster) is Phase.READY
    found = status(cluster)
    assert (found["replicas"], found["digest"]) == (2, "sha256:1")
    assert found["url"] == "http://sentiment-predictor.team.svc.cluster.local"
    assert found["model"] == "t/finetune-42"
    assert condition(cluster, "GatePassed") == ("True", "GatePassed")
    assert condition(cluster, "Ready") == ("True", "Ready")
    assert cluster.events[-1] == "Ready: 2 copies answer"


def test_below_the_gate_nothing_is_made(cluster: FakeCluster) -> None:
    judge(cluster, **{**PASSED, "gatePassed": False, "gateReason": "not above the majority"})
    assert look(cluster) is Phase.BLOCKED
    assert cluster.writes == ["status"]
    assert condition(cluster, "GatePassed") == ("False", "GateFailed")
    assert "not above the majority" in status(cluster)["message"]
    assert cluster.events == [f"!GateFailed: {status(cluster)['message']}"]


def test_a_second_look_writes_nothing(cluster: FakeCluster) -> None:
    judge(cluster, **PASSED)
    reconciler = make_reconciler(cluster)
    look(cluster, reconciler)
    start_copies(cluster, "a")
    look(cluster, reconciler)
    cluster.writes.clear()
    for _ in range(3):
        assert look(cluster, reconciler) is Phase.READY
    assert cluster.writes == []
    isvc = cluster.objects["InferenceService", "sentiment"]
    limits = isvc["spec"]["predictor"]["model"]["resources"]["limits"]
    limits["memory"] = "4096Mi"  # the same in other words
    look(cluster, reconciler)
    assert cluster.writes == []
    isvc["spec"]["predictor"]["minReplicas"] = 9  # somebody's hand
    look(cluster, reconciler)
    assert cluster.writes[0] == "apply InferenceService"


def test_a_field_that_is_asked_for_no_more_is_taken_away(cluster: FakeCluster) -> None:
    assert cluster.resource
    judge(cluster, **PASSED)
    reconciler = make_reconciler(cluster)
    cluster.resource["spec"]["resources"] = {"sharedMemory": "1Gi"}
    look(cluster, reconciler)
    assert "volumes" in cluster.objects["InferenceService", "sentiment"]["spec"]["predictor"]
    del cluster.resource["spec"]["resources"]
    look(cluster, reconciler)
    assert "volumes" not in cluster.objects["InferenceService", "sentiment"]["spec"]["predictor"]


def test_a_newer_evaluation_that_fails_takes_nothing_away(cluster: FakeCluster) -> None:
    assert cluster.resource
    judge(cluster, **PASSED)
    look(cluster)
    start_copies(cluster, "a")
    look(cluster)
    judge(cluster, **{**PASSED, "gatePassed": False, "servedCheckpoint": "s3://bucket/worse"})
    cluster.resource["spec"]["scale"] = {"minReplicas": 2, "maxReplicas": 3}
    assert look(cluster) is Phase.BLOCKED
    predictor = cluster.objects["InferenceService", "sentiment"]["spec"]["predictor"]
    assert predictor["minReplicas"] == 2
    assert predictor["model"]["storageUri"] == "fsb+s3://bucket/run/evaluation/t/finetune-42/"
    assert condition(cluster, "Ready")[0] == "True"
    assert status(cluster)["checkpoint"] == PASSED["servedCheckpoint"]


def test_moving_an_alias_is_a_rolling_update(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    for number in (1, 2):
        put_version(store, number, gate=gate(True))
    versions.promote("sentiment@1", "production", store=store)
    cluster = make_cluster(model="sentiment@production")
    reconciler = make_reconciler(cluster, modelStore=store)
    assert look(cluster, reconciler) is Phase.STARTING
    start_copies(cluster, "a")
    assert look(cluster, reconciler) is Phase.READY
    found = status(cluster)
    assert (found["model"], found["version"]) == ("sentiment@production", 1)
    assert condition(cluster, "GatePassed") == ("True", "VersionGatePassed")
    versions.promote("sentiment@2", "production", store=store)
    assert look(cluster, reconciler) is Phase.STARTING
    old = list(cluster.pods)
    start_copies(cluster, "b")
    cluster.pods += old
    assert look(cluster, reconciler) is Phase.STARTING
    assert condition(cluster, "Ready") == ("True", "RollingOut")
    cluster.pods = cluster.pods[:1]
    assert look(cluster, reconciler) is Phase.READY
    assert (status(cluster)["version"], status(cluster)["checkpoint"]) == (2, "s3://bucket/v2")


def test_what_keeps_copies_from_starting_is_told(cluster: FakeCluster) -> None:
    judge(cluster, **PASSED)
    look(cluster)
    start_copies(cluster, "a", is_ready=False)
    annotations = cluster.objects["InferenceService", "sentiment"]["metadata"]["annotations"]
    ended = client.V1ContainerStateTerminated(
        exit_code=3, message="start\nDataError: no such object\n"
    )
    waits = client.V1ContainerState(
        waiting=client.V1ContainerStateWaiting(reason="CrashLoopBackOff", message="back-off")
    )
    fetch = SimpleNamespace(
        name="storage-initializer", state=waits,
        last_state=client.V1ContainerState(terminated=ended),
    )  # fmt: skip
    cluster.pods = [make_pod("a", annotations, init_container_statuses=[fetch])]
    assert look(cluster) is Phase.FAILED
    message = "a: FetchFailed: exit code 3: start | DataError: no such object"
    assert status(cluster)["message"] == message
    pull = client.V1ContainerStateWaiting(reason="ImagePullBackOff", message="no such image")
    main = SimpleNamespace(
        name="kserve-container", state=client.V1ContainerState(waiting=pull), last_state=None
    )
    cluster.pods = [make_pod("a", annotations, container_statuses=[main])]
    assert look(cluster) is Phase.BLOCKED
    assert condition(cluster, "Ready") == ("False", "ImagePullBackOff")
    place = SimpleNamespace(
        type="PodScheduled", status="False", reason="Unschedulable", message="0/2 nodes"
    )
    cluster.pods = [make_pod("a", annotations, conditions=[place])]
    assert look(cluster) is Phase.BLOCKED
    assert status(cluster)["message"] == "a: Unschedulable: 0/2 nodes"


def test_a_pod_on_its_way_out_counts_no_more() -> None:
    leaving = make_pod("a", {}, ready="True")
    leaving.metadata.deletion_timestamp = "now"
    (found,) = read_copies([leaving, make_pod("b", {}, ready="True")])
    assert (found.name, found.is_ready) == ("b", True)


def test_what_kserve_says_is_read() -> None:
    isvc = {
        "metadata": {"generation": 2, "annotations": {"fengshenbang.io/version": "3"}},
        "status": {
            "observedGeneration": 2,
            "conditions": [{"type": "PredictorReady", "status": "False", "message": "late"}],
            "modelStatus": {
                "lastFailureInfo": {"reason": "RuntimeNotRecognized", "message": "no runtime x"}
            },
        },
    }
    found = read_service(isvc)
    assert found
    assert (found.trouble, found.message) == ("RuntimeNotRecognized", "no runtime x")
    assert (found.is_ready, found.checkpoint.version) == (False, 3)
    older = copy.deepcopy(isvc)
    older["metadata"]["generation"] = 3  # KServe has not looked yet
    found = read_service(older)
    assert found
    assert (found.trouble, found.message) == ("", "late")
    ahead = copy.deepcopy(isvc)
    ahead["status"] = {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "True"}]}
    found = read_service(ahead)  # KServe may count further than the API server
    assert found
    assert found.is_ready
    assert read_service(None) is None
    assert read_url(isvc, name="a", namespace="b") == "http://a-predictor.b.svc"


def test_a_service_of_somebody_else_is_not_touched(cluster: FakeCluster) -> None:
    judge(cluster, **PASSED)
    cluster.objects["InferenceService", "sentiment"] = {
        "kind": "InferenceService", "metadata": {"uid": "x", "name": "sentiment"}, "spec": {},
    }  # fmt: skip
    assert look(cluster) is Phase.INVALID
    assert "of somebody else is in the way" in status(cluster)["message"]


def test_copies_that_are_refused_or_cannot_mount_block(cluster: FakeCluster) -> None:
    judge(cluster, **PASSED)
    look(cluster)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    quota = make_event("FailedCreate", "pods is forbidden: exceeded quota", now)
    quota.involved_object.kind = "ReplicaSet"
    quota.involved_object.name = "sentiment-predictor-7d9f"
    cluster.told[None] = [quota]
    assert look(cluster) is Phase.BLOCKED
    assert condition(cluster, "Ready") == ("False", "FailedCreate")
    assert "exceeded quota" in status(cluster)["message"]
    quota.involved_object.name = "sentiment-b-predictor-7d9f"
    assert look(cluster) is Phase.STARTING, "another Deployment's"
    start_copies(cluster, "a", is_ready=False)
    cluster.told["uid-a"] = [make_event("FailedMount", "claim not found", now)]
    assert look(cluster) is Phase.BLOCKED
    assert status(cluster)["message"] == "a: FailedMount: claim not found"
    start_copies(cluster, "a")
    assert look(cluster) is Phase.READY


def test_a_workflow_that_ended_takes_its_service_with_it() -> None:
    cluster = make_cluster(evaluation="scored", stopsWith={"workflow": "flow", "uid": "f"})
    cluster.objects["Workflow", "flow"] = {"metadata": {"uid": "f"}, "status": {"phase": "Running"}}
    judge(cluster, **PASSED)
    look(cluster)
    cluster.objects["Workflow", "flow"]["status"]["phase"] = "Failed"
    assert look(cluster) is Phase.FAILED
    assert ("InferenceService", "sentiment") not in cluster.objects
    assert status(cluster)["phase"] == "Failed"
    assert "url" not in status(cluster)


def test_kserve_that_is_not_installed_is_named(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(cluster, **PASSED)

    def get(_version: str, kind: str, _namespace: str, _name: str) -> dict[str, Any] | None:
        if kind == "InferenceService":
            raise MissingKindError(f"cannot read {kind} team/sentiment: no such kind")
        return cluster.resource

    monkeypatch.setattr(cluster, "get", get)
    assert look(cluster) is Phase.BLOCKED
    assert status(cluster)["message"].endswith("; install KServe 0.20 or newer")
