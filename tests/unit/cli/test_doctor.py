from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pyfsb.cli import doctor
from pyfsb.cli.__main__ import main
from pyfsb.engines.cluster_checks import Check, Verdict, check_cluster
from pyfsb.resources import API_VERSION
from tests.conftest import ROOT
from tests.helpers.api_server import FakeApi, Json

LABELS = {"app.kubernetes.io/name": "fengshenbang", "app.kubernetes.io/component": "operator"}
SETTINGS = """
images: {}
namespaces: [team]
pools:
  default: {}
  a100: {nodeSelector: {gpu: a100}, deviceResource: nvidia.com/gpu, devicesPerNode: 8}
"""


def deployment(namespace: str, name: str, *, ready: int = 1) -> Json:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": LABELS if "feng" in name else {}},
        "spec": {"replicas": 1}, "status": {"readyReplicas": ready},
    }  # fmt: skip


def node(name: str, labels: Json, devices: str) -> Json:
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"nvidia.com/gpu": devices},
        },
    }


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """A cluster with everything in it."""
    fake = FakeApi()
    fake.put("/version", {"gitVersion": "v1.35.4", "minor": "35+"})
    for path, name in (
        ("kubeflow.org/v1", "pytorchjobs"), ("serving.kserve.io/v1beta1", "inferenceservices"),
        ("pipelines.kubeflow.org/v2beta1", "pipelines"), ("argoproj.io/v1alpha1", "workflows"),
        ("monitoring.coreos.com/v1", "servicemonitors"), ("metrics.k8s.io/v1beta1", "pods"),
    ):  # fmt: skip
        fake.put(f"/apis/{path}", {"resources": [{"name": name}]})
    for namespace, name in (
        ("fsb", "fengshenbang-operator"), ("kubeflow", "training-operator"),
        ("kserve", "kserve-controller-manager"),
    ):  # fmt: skip
        fake.put(f"/apis/apps/v1/deployments/{name}", deployment(namespace, name))
    for kind in ("clusterservingruntimes", "clusterstoragecontainers"):
        fake.put(f"/apis/serving.kserve.io/v1alpha1/{kind}/fengshenbang", {})
    settings = {"metadata": {"labels": LABELS}, "data": {"settings.yaml": SETTINGS}}
    fake.put("/api/v1/namespaces/fsb/configmaps/s", settings)
    fake.put("/api/v1/nodes/n1", node("n1", {"gpu": "a100"}, "8"))
    restricted = {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    fake.put("/api/v1/namespaces/team", {"metadata": restricted})
    fake.put("/api/v1/namespaces/team/serviceaccounts/fengshenbang-run", {})
    storage_class = {
        "metadata": {
            "name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}
        }
    }  # fmt: skip
    fake.put("/apis/storage.k8s.io/v1/storageclasses/fast", storage_class)
    monkeypatch.setattr(doctor, "connect", lambda namespace: fake.client(namespace or "team"))
    monkeypatch.setattr(doctor, "is_configured", lambda: True)
    return fake


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_whole_cluster_passes(api: FakeApi) -> None:
    checks = check_cluster(api.client())
    assert {check.verdict for check in checks} == {Verdict.OK}
    found = by_name(checks)
    # A kind says nothing about its controller; an API that answers does.
    assert found["Kubeflow Pipelines"].found == "pipelines.kubeflow.org/v2beta1, its kinds"
    assert found["metrics server"].found == "metrics.k8s.io/v1beta1"
    assert found["namespace"].found == "team, Pod Security Standard restricted"
    assert found["pool a100"].found == "1 of 1 nodes ready, 1 with 8 nvidia.com/gpu"


def without_kinds(api: FakeApi) -> None:
    api.objects[f"/apis/{API_VERSION}"]["resources"].pop()


def without_pytorchjob(api: FakeApi) -> None:
    del api.objects["/apis/kubeflow.org/v1"]


def without_a_ready_operator(api: FakeApi) -> None:
    api.objects["/apis/apps/v1/deployments/fengshenbang-operator"]["status"] = {}


def without_an_operator(api: FakeApi) -> None:
    del api.objects["/apis/apps/v1/deployments/fengshenbang-operator"]


def without_the_namespace(api: FakeApi) -> None:
    del api.objects["/api/v1/namespaces/team"]


def without_the_account(api: FakeApi) -> None:
    del api.objects["/api/v1/namespaces/team/serviceaccounts/fengshenbang-run"]


def without_rights(api: FakeApi) -> None:
    api.denied |= {"create trainingruns", "patch trainingruns"}


def test_a_missing_right_names_the_role_that_gives_it(api: FakeApi) -> None:
    api.denied |= {"create services"}
    check = by_name(check_cluster(api.client()))["right: asking services"]
    assert check.verdict is Verdict.WARNING
    assert "fengshenbang-user" in check.remedy
    role = ROOT / "charts/fengshenbang/templates/operator/user-roles.yaml"
    text = role.read_text(encoding="utf-8")
    assert "fengshenbang-user" in text and "services/proxy" in text


def without_being_watched(api: FakeApi) -> None:
    data = api.objects["/api/v1/namespaces/fsb/configmaps/s"]["data"]
    data["settings.yaml"] = SETTINGS.replace("[team]", "[other]")


def without_a_server(api: FakeApi) -> None:
    api.failures.append(OSError("connection refused"))


@pytest.mark.parametrize(
    ("damage", "name", "found", "remedy"),
    [
        (without_kinds, "custom resources", "missing: ServedModel", "install the chart"),
        (without_pytorchjob, "PyTorchJob", "not installed", "Training Operator"),
        (without_a_ready_operator, "operator", "0 of 1 ready", "kubectl -n fsb describe deploy"),
        (without_an_operator, "operator", "no Deployment", "install the chart"),
        (without_the_namespace, "namespace", "no namespace 'team'", "choose one with -n"),
        (without_the_account, "service account", "no 'fengshenbang-run'", "chart's namespaces"),
        (without_rights, "right: trainingruns", "may not create, patch in team", "ask for"),
        (without_being_watched, "watched namespaces", "other", "add 'team' to the chart's"),
        (without_a_server, "API server", "connection refused", "check KUBECONFIG"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    damage: Callable[[FakeApi], None], name: str, found: str, remedy: str, api: FakeApi
) -> None:
    damage(api)
    checks = check_cluster(api.client())
    (check,) = [one for one in checks if one.verdict is Verdict.FAILED]
    assert check.name == name
    assert found in check.found
    assert remedy in check.remedy


def test_what_only_some_runs_need_is_a_warning(api: FakeApi) -> None:
    del api.objects["/apis/serving.kserve.io/v1beta1"]
    del api.objects["/apis/argoproj.io/v1alpha1"]
    del api.objects["/apis/storage.k8s.io/v1/storageclasses/fast"]
    api.objects["/api/v1/nodes/n1"]["status"]["allocatable"] = {"nvidia.com/gpu": "4"}
    api.denied |= {"create services"}
    api.objects["/version"]["minor"] = "28"
    found = by_name(check_cluster(api.client()))
    for name in ("KServe", "pool a100", "right: asking services", "API server"):
        assert found[name].verdict is Verdict.WARNING
    for name in ("Argo Workflows", "default StorageClass"):
        assert found[name].verdict is Verdict.SKIPPED
    assert not [one for one in found.values() if one.verdict is Verdict.FAILED]


def test_where_it_may_not_look_it_goes_on(api: FakeApi) -> None:
    api.denied |= {"/apis/apps/v1/deployments", "/api/v1/namespaces/team"}
    found = by_name(check_cluster(api.client()))
    for name in ("operator", "controllers", "namespace"):
        assert found[name].verdict is Verdict.SKIPPED
        assert "this user may not" in found[name].found
    assert found["right: trainingruns"].verdict is Verdict.OK


def test_the_command_ends_with_2_when_something_is_missing(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FSB_MODEL_STORE", raising=False)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for part in ("machine", "Python 3.", "cluster", "v1.35.4", "storage: not checked"):
        assert part in text
    without_kinds(api)
    assert main(["doctor", "cluster", "--output", "json"]) == 2
    checks = json.loads(capsys.readouterr().out)
    assert {check["area"] for check in checks} == {"cluster"}
    (failed,) = [check for check in checks if check["verdict"] == "failed"]
    assert failed["name"] == "custom resources"
    assert main(["doctor", "clutser"]) == 2
    assert "unknown area 'clutser'; did you mean 'cluster'?" in capsys.readouterr().err


def test_a_laptop_without_a_cluster_is_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "FSB_MODEL_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["doctor"]) == 0
    assert "cluster: not checked; set KUBECONFIG" in capsys.readouterr().out
    assert main(["doctor", "cluster"]) == 2
    assert "no cluster:" in capsys.readouterr().out


def test_a_store_is_tried(s3: str, strict_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_name(list(doctor.check_storage(strict_s3)))
    assert {check.verdict for check in found.values()} == {Verdict.OK}
    assert "written, read and deleted" in found["object store"].found
    failed = by_name(list(doctor.check_storage("s3://no-such-bucket-here/x")))["object store"]
    assert failed.verdict is Verdict.FAILED
    assert "AWS_ENDPOINT_URL_S3" in failed.remedy
    assert [check.verdict for check in doctor.check_storage(None)] == [Verdict.FAILED]


def test_a_store_that_ignores_conditions_is_named(s3: str) -> None:
    found = by_name(list(doctor.check_storage(s3)))
    assert found["conditional writes"].verdict is Verdict.WARNING
    assert "aliases of models cannot be moved" in found["conditional writes"].remedy


def test_nothing_heavy_is_imported_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    good = Check(name="import", verdict=Verdict.OK, found="works")
    monkeypatch.setattr(doctor, "_check_import", lambda name: asked.append(name) or good)
    list(doctor.check_machine(with_imports=False))
    assert asked == []
    list(doctor.check_machine(with_imports=True))
    assert asked == ["torch", "deepspeed"]
