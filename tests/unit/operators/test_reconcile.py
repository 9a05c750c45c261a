"""The reconciler over a cluster in memory that keeps what is applied and plays the job."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes import client
from prometheus_client import CollectorRegistry

from operators.cluster import Cluster, MissingKindError, RefusedError
from operators.metrics import Metrics
from operators.reconcile import Reconciler
from pyfsb import versions
from pyfsb.errors import StorageError
from pyfsb.resources.status import Phase
from tests.helpers.versions import put_version
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
    patches: list[dict[str, Any]] = field(default_factory=list)
    told: dict[str | None, list[client.CoreV1Event]] = field(default_factory=dict)
    """Events by the uid that they are about."""

    def get(self, _version: str, kind: str, _namespace: str, name: str) -> dict[str, Any] | None:
        if self.resource and kind == self.resource["kind"]:
            return copy.deepcopy(self.resource)
        return copy.deepcopy(self.objects.get((kind, name)))

    def list_pods(self, _namespace: str, _label: str, _value: str) -> list[client.V1Pod]:
        return self.pods

    def list_events(
        self, _namespace: str, *, uid: str | None = None, reason: str | None = None
    ) -> list[client.CoreV1Event]:
        return [e for e in self.told.get(uid, []) if reason in (None, e.reason)]

    def apply(self, manifest: dict[str, Any], owner: dict[str, Any]) -> dict[str, Any]:
        whole = copy.deepcopy(manifest)
        whole["metadata"]["uid"] = "job-uid"
        metadata = owner["metadata"]
        reference = {"uid": metadata["uid"], "kind": owner["kind"], "name": metadata["name"]}
        whole["metadata"]["ownerReferences"] = [reference]
        self.objects[whole["kind"], whole["metadata"]["name"]] = whole
        self.writes.append(f"apply {whole['kind']}")
        return whole

    def delete(self, _version: str, kind: str, _namespace: str, name: str, uid: str) -> None:
        assert self.objects[kind, name]["metadata"]["uid"] == uid
        del self.objects[kind, name]
        self.writes.append(f"delete {kind}")

    def patch_status(self, _kind: str, _namespace: str, _name: str, status: dict[str, Any]) -> None:
        assert self.resource
        merged = {**self.resource.get("status", {}), **status}
        self.resource["status"] = {key: v for key, v in merged.items() if v is not None}
        self.writes.append("status")
        self.patches.append(status)

    def tell(self, _owner: dict[str, Any], *, reason: str, message: str, is_warning: bool) -> None:
        self.events.append(f"{'!' if is_warning else ''}{reason}: {message}")


def make_event(reason: str, message: str, last: datetime) -> client.CoreV1Event:
    return client.CoreV1Event(
        involved_object=client.V1ObjectReference(), metadata=client.V1ObjectMeta(),
        type="Warning", reason=reason, message=message, last_timestamp=last,
    )  # fmt: skip


def make_pod(name: str, uid: str, **state: Any) -> client.V1Pod:
    status = SimpleNamespace(
        name="pytorch",
        state=client.V1ContainerState(**(state or {"running": client.V1ContainerStateRunning()})),
    )
    return cast(
        "client.V1Pod",
        SimpleNamespace(
            metadata=SimpleNamespace(
                name=name, uid=uid, deletion_timestamp=None,
                owner_references=[SimpleNamespace(uid="job-uid")],
            ),
            spec=None,
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


def make_reconciler(cluster: FakeCluster, **settings: Any) -> Reconciler:
    return Reconciler(
        cluster=cast("Cluster", cluster), settings=make_settings(**settings), clock=Clock(),
        metrics=Metrics(CollectorRegistry()),
    )  # fmt: skip


def look(cluster: FakeCluster, **settings: Any) -> Phase | None:
    assert cluster.resource
    kind, name = cluster.resource["kind"], cluster.resource["metadata"]["name"]
    return make_reconciler(cluster, **settings).reconcile(kind, "team", name)


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
    assert "unknown node pool (known: a100, default) 'a10'" in status(cluster)["message"]
    assert len(cluster.events) == 1
    look(cluster)
    assert len(cluster.events) == 1
    cluster.resource["spec"]["pool"] = "default"
    cluster.resource["metadata"]["generation"] = 2
    assert look(cluster) is Phase.STARTING
    assert [c["status"] for c in status(cluster)["conditions"] if c["type"] == "Valid"] == ["True"]


def test_a_job_of_somebody_else_is_not_touched(cluster: FakeCluster) -> None:
    cluster.objects["PyTorchJob", "demo"] = {
        "kind": "PyTorchJob", "metadata": {"uid": "x", "name": "demo"}, "spec": {},
    }  # fmt: skip
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
    look(cluster)
    cluster.pods = [make_pod("m", "1", terminated=ended(0, message))]
    cluster.objects["PyTorchJob", "demo"]["status"] = {
        "conditions": [{"type": "Succeeded", "status": "True"}]
    }
    assert look(cluster) is Phase.SUCCEEDED
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
    assert make_reconciler(cluster).reconcile("TrainingRun", "team", "demo") is None


class Missing(FakeCluster):
    """A cluster without the Training Operator."""

    def get(self, version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        if kind == "PyTorchJob":
            raise MissingKindError(f"cannot read {kind} {namespace}/{name}: no such kind")
        return super().get(version, kind, namespace, name)


def conditions(cluster: FakeCluster) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status(cluster)["conditions"]}


def test_an_operator_that_is_not_installed_is_named(cluster: FakeCluster) -> None:
    without = Missing(cluster.resource)
    assert look(without) is Phase.BLOCKED
    assert status(without)["message"].endswith("install the Kubeflow Training Operator 1.9")
    assert conditions(without)["Valid"] == ("Unknown", "MissingKindError")
    cluster.resource = without.resource
    assert look(cluster) is Phase.STARTING


def test_what_the_api_server_refuses_is_told_and_tried_again(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RefusedError("cannot apply PyTorchJob team/demo: 403 Forbidden: exceeded quota")

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "apply", refuse)
        for _ in range(2):
            with pytest.raises(RefusedError):
                look(cluster)
    assert status(cluster)["phase"] == "Blocked"
    assert "exceeded quota" in status(cluster)["message"]
    assert len(cluster.events) == 1
    assert look(cluster) is Phase.STARTING


def test_a_reference_is_resolved_once_and_pinned(cluster: FakeCluster, tmp_path: Path) -> None:
    assert cluster.resource
    store = str(tmp_path / "models")
    put_version(store, 1)
    put_version(store, 2)
    versions.promote("sentiment@1", "production", store=store, ignores_gate=True)
    model = {"name": "Wenzhong-GPT2-110M", "checkpoint": "sentiment@production"}
    cluster.resource["spec"]["run"]["model"] = model
    assert look(cluster, modelStore=store) is Phase.STARTING
    assert status(cluster)["checkpoint"] == "s3://bucket/v1"
    (spec_map,) = (value for (kind, _), value in cluster.objects.items() if kind == "ConfigMap")
    assert "checkpoint: s3://bucket/v1\n" in spec_map["data"]["spec.yaml"]
    versions.promote("sentiment@2", "production", store=store, ignores_gate=True)
    cluster.pods = [make_pod("m", "1"), make_pod("w", "2")]
    assert look(cluster, modelStore=store) is Phase.RUNNING
    assert status(cluster)["checkpoint"] == "s3://bucket/v1"


def test_the_pin_is_written_before_anything_is_started(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.resource
    store = str(tmp_path / "models")
    put_version(store, 1)
    cluster.resource["spec"]["run"]["model"]["checkpoint"] = "sentiment@1"
    monkeypatch.setattr(cluster, "apply", None)
    with pytest.raises(TypeError):
        look(cluster, modelStore=store)
    assert (status(cluster)["checkpoint"], cluster.writes) == ("s3://bucket/v1", ["status"])


@pytest.mark.parametrize(
    ("reference", "settings", "words"),
    [
        ("sentiment@1", {}, "this platform has none; set modelStore"),
        ("sentimnet@1", {"modelStore": "models"}, "unknown model in"),
        ("sentiment@prod", {"modelStore": "models"}, "unknown alias of sentiment"),
        ("sentiment@9", {"modelStore": "models"}, "unknown version of sentiment (known: 1)"),
    ],
)
def test_a_reference_that_names_nothing_is_invalid(
    cluster: FakeCluster, tmp_path: Path, reference: str, settings: dict[str, str], words: str
) -> None:
    assert cluster.resource
    put_version(str(tmp_path / "models"), 1)
    cluster.resource["spec"]["run"]["model"]["checkpoint"] = reference
    found = {key: str(tmp_path / value) for key, value in settings.items()}
    assert look(cluster, **found) is Phase.INVALID
    assert words in status(cluster)["message"]


def test_a_store_that_is_away_is_told_and_tried_again(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.resource

    def fail(*_: object) -> None:
        raise StorageError("cannot read s3://models/x after 5 attempts")

    monkeypatch.setattr(versions, "resolve", fail)
    cluster.resource["spec"]["run"]["model"]["checkpoint"] = "sentiment@1"
    with pytest.raises(StorageError):
        look(cluster, modelStore="s3://models")
    assert (status(cluster)["phase"], conditions(cluster)["Valid"]) == (
        "Pending", ("Unknown", "StorageError"),
    )  # fmt: skip
    assert "after 5 attempts" in status(cluster)["message"]


def test_progress_is_another_writers(cluster: FakeCluster) -> None:
    assert cluster.resource
    cluster.resource["status"] = {"progress": {"step": 3}}
    look(cluster)
    assert status(cluster)["progress"] == {"step": 3}
    assert "progress" not in cluster.patches[-1]


def test_what_an_evaluation_serves_is_told_as_everybody_names_it(cluster: FakeCluster) -> None:
    assert cluster.resource
    cluster.resource["kind"] = "Evaluation"
    told = {
        "record": "/mnt/claims/disk/demo/evaluation", "digest": "d", "scores": [],
        "gate": {"passed": True, "reason": "r"}, "servedDigest": "sha256:9",
        "servedCheckpoint": "/mnt/claims/disk/demo/evaluation/t/finetune-42",
    }  # fmt: skip
    look(cluster)
    cluster.pods = [make_pod("m", "1", terminated=ended(0, json.dumps(told)))]
    done = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    cluster.objects["PyTorchJob", "demo"]["status"] = done
    assert look(cluster) is Phase.SUCCEEDED
    found = status(cluster)
    assert found["record"] == "pvc://disk/demo/evaluation"
    assert found["servedCheckpoint"] == "pvc://disk/demo/evaluation/t/finetune-42"
    assert found["servedDigest"] == "sha256:9"
