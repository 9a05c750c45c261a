"""Every pod of the chart, KServe's containers among them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.helm import S3, Manifest, find, pod_specs, render
from tests.unit.charts.matrix import EVERYTHING, MATRIX

pytestmark = pytest.mark.helm
ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip


def violations(spec: Manifest) -> list[str]:
    """Return what Pod Security Standard `restricted` forbids in a pod spec."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    for volume in spec.get("volumes", ()):
        found += [f"volume {kind}" for kind in set(volume) - {"name"} - ALLOWED_VOLUMES]
    pod = spec.get("securityContext", {})
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        security: dict[str, Any] = {**pod, **container.get("securityContext", {})}
        name = container["name"]
        wanted = {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        found += [f"{name}: {key}" for key, value in wanted.items() if security.get(key) != value]
        if security.get("runAsUser") == 0 or security.get("privileged"):
            found.append(f"{name}: root")
        if any("hostPort" in port for port in container.get("ports", ())):
            found.append(f"{name}: hostPort")
    return found


def test_the_checker_sees_a_bad_pod() -> None:
    bad = {
        "hostNetwork": True,
        "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
        "containers": [{"name": "c", "securityContext": {"runAsUser": 0}}],
    }
    assert {"hostNetwork", "volume hostPath", "c: root", "c: capabilities"} <= set(violations(bad))


@pytest.mark.parametrize("name", MATRIX)
def test_every_pod_is_restricted(name: str) -> None:
    specs = pod_specs(render(*MATRIX[name]))
    assert len(specs) >= 3
    assert {key: violations(spec) for key, spec in specs.items() if violations(spec)} == {}


def test_every_container_asks_for_resources_and_can_write_to_tmp() -> None:
    for key, spec in pod_specs(render("storage.dev.enabled=true")).items():
        for container in spec["containers"]:
            assert container["resources"]["requests"]["memory"], key
            assert container["resources"]["limits"]["memory"], key
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], key


def test_tokens_are_mounted_only_where_the_api_is_asked() -> None:
    specs = pod_specs(render("storage.dev.enabled=true"))
    asking = {
        key.split("/")[-1]
        for key, spec in specs.items()
        if spec.get("automountServiceAccountToken")
    }
    assert asking == {
        "fengshenbang-operator", "fengshenbang-progress", "fengshenbang-credentials",
        "fengshenbang-test-platform",
    }  # fmt: skip
    serving = {key for key, spec in specs.items() if "automountServiceAccountToken" not in spec}
    assert {key.split("/")[0] for key in serving} <= {
        "ClusterServingRuntime",
        "ClusterStorageContainer",
    }


def images(manifests: list[Manifest]) -> set[str]:
    return {
        container["image"]
        for spec in pod_specs(manifests).values()
        for container in (*spec.get("initContainers", ()), *spec["containers"])
    }


def test_images_come_from_one_place() -> None:
    assert images(render("storage.dev.enabled=true")) == {
        f"fengshenbang/{stage}:0.1.0" for stage in ("data", "eval", "serving", "operator")
    }


def test_a_registry_and_a_tag_reach_every_image() -> None:
    found = images(
        render("storage.dev.enabled=true", "image.registry=mirror.local:5000/ai", "image.tag=v7")
    )
    assert found == {
        f"mirror.local:5000/ai/fengshenbang/{s}:v7" for s in ("data", "eval", "serving", "operator")
    }


def test_a_digest_wins() -> None:
    digest = "sha256:" + "0" * 64
    manifests = render(*S3, f"images.operator.digest={digest}", "images.operator.tag=v5")
    operator = pod_specs(manifests)["Deployment/fengshenbang/fengshenbang-operator"]
    assert operator["containers"][0]["image"] == f"fengshenbang/operator@{digest}"
    settings = find(manifests, "ConfigMap", "fengshenbang-operator")["data"]["settings.yaml"]
    assert f"fengshenbang/operator@{digest}" in settings


def test_pull_secrets_reach_every_pod() -> None:
    for key, spec in pod_specs(render(*EVERYTHING)).items():
        if not key.startswith("ClusterStorageContainer"):  # a container has none
            assert spec["imagePullSecrets"] == [{"name": "mirror"}], key


def test_the_uploading_job_is_another_when_its_image_is() -> None:
    def job(*sets: str) -> str:
        jobs = [item for item in render(*S3, *sets) if item["kind"] == "Job"]
        return str(jobs[0]["metadata"]["name"])

    assert job() == job("operator.resources.limits.memory=1Gi")
    assert job() != job("image.tag=v2")
    assert job() != job("pipelines.endpoint=https://kfp.example.com")


def test_changed_settings_restart_the_operator() -> None:
    def checksum(*sets: str) -> str:
        template = find(render(*S3, *sets), "Deployment", "fengshenbang-operator")["spec"][
            "template"
        ]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum() != checksum("pools.default.cpu=2")
    assert checksum() == checksum("leaderboard.replicas=3")


def test_a_store_without_keys_needs_no_secret() -> None:
    manifests = render(*S3, "storage.credentialsSecret=")
    for key, spec in pod_specs(manifests).items():
        assert all("envFrom" not in container for container in spec["containers"]), key


def test_servers_drain_before_they_end() -> None:
    runtime = find(render(*S3), "ClusterServingRuntime", "fengshenbang")["spec"]
    container = runtime["containers"][0]
    assert container["name"] == "kserve-container"
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 10
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert runtime["supportedModelFormats"][0]["name"] == "fengshenbang"
    assert set(runtime["protocolVersions"]) == {"v1", "v2"}


def test_only_our_own_scheme_is_fetched_with_our_container() -> None:
    manifests = render(*EVERYTHING)
    spec = find(manifests, "ClusterStorageContainer", "fengshenbang")["spec"]
    assert spec["supportedUriFormats"] == [{"prefix": "fsb+s3://"}]
    assert spec["container"]["name"] == "storage-initializer"
    # A storage container has no volumes of its own: those that it mounts are the runtime's.
    runtime = find(manifests, "ClusterServingRuntime", "fengshenbang")["spec"]
    names = {volume["name"] for volume in runtime["volumes"]}
    assert {mount["name"] for mount in spec["container"]["volumeMounts"]} <= names
