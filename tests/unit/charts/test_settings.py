"""What the chart tells the operator, read as the operator reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from operators.settings import OperatorSettings, load_settings
from tests.helpers.helm import S3, find, render
from tests.unit.charts.matrix import EVERYTHING, MATRIX

pytestmark = pytest.mark.helm


def settings(folder: Path, *sets: str) -> OperatorSettings:
    path = folder / "settings.yaml"
    path.write_text(
        find(render(*sets), "ConfigMap", "fengshenbang-operator")["data"]["settings.yaml"]
    )
    return load_settings(str(path))


@pytest.mark.parametrize("name", MATRIX)
def test_the_operator_understands_them(tmp_path: Path, name: str) -> None:
    found = settings(tmp_path, *MATRIX[name])
    assert set(found.pools) >= {"default", "cpu", "a100-40", "a100-80", "h100"}


def test_defaults(tmp_path: Path) -> None:
    found = settings(tmp_path, *S3)
    assert found.namespaces == ()
    assert found.credentials_secret == "fengshenbang-s3"
    assert found.model_store == "s3://models/models"
    assert found.leaderboard == "s3://models/leaderboard"
    assert found.progress_url == "http://fengshenbang-progress.fengshenbang.svc:8090"
    assert found.environment == {
        "AWS_ENDPOINT_URL_S3": "https://s3.example.com:9443",
        "AWS_REGION": "us-east-1",
        "FSB_S3_ADDRESSING": "auto",
    }
    default = found.pool("default")
    assert (default.cpu, default.device_resource, default.node_selector) == ("1", None, {})


def test_everything_reaches_the_stages(tmp_path: Path) -> None:
    found = settings(tmp_path, *EVERYTHING)
    assert found.namespaces == ("team-a", "team-b")
    assert found.images.train == f"mirror.example.com/ai/fengshenbang/train@sha256:{'ab' * 32}"
    assert found.pull_secrets == ("mirror",)
    assert found.certificates == "fengshenbang-ca"
    assert found.progress_url == "https://fengshenbang-progress.fengshenbang.svc:8090"
    assert found.progress_certificate == "progress-ca"
    assert found.model_store == "s3://models/teams/nlp/models"
    assert found.environment["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert found.environment["NO_PROXY"].endswith(",s3.example.com")
    assert found.environment["HF_ENDPOINT"] == "https://hub.example.com"


def test_a_volume_takes_the_place_of_s3(tmp_path: Path) -> None:
    found = settings(tmp_path, *MATRIX["volume"])
    assert found.model_store == "pvc://shared/models/models"
    assert found.credentials_secret is None
    assert found.progress_url is None
    assert "AWS_REGION" not in found.environment


def test_profiles_know_devices_taints_and_cloud_labels(tmp_path: Path) -> None:
    labels = {
        "gfd": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
        "gke": {"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"},
        "eks": {"node.kubernetes.io/instance-type": "p4de.24xlarge"},
        "aks": {"node.kubernetes.io/instance-type": "Standard_ND96amsr_A100_v4"},
        "none": {},
    }
    for cloud, wanted in labels.items():
        pool = settings(tmp_path, *S3, f"nodeLabels={cloud}").pool("a100-80")
        assert pool.node_selector == wanted
        assert (pool.device_resource, pool.devices_per_node) == ("nvidia.com/gpu", 8)
        assert pool.tolerations[0]["key"] == "nvidia.com/gpu"


def test_a_pool_wins_over_its_profile(tmp_path: Path) -> None:
    found = settings(
        tmp_path, *S3, "pools.mine.profile=h100", "pools.mine.devicesPerNode=4",
        "pools.mine.nodeSelector.rack=r1", "pools.mine.environment.NCCL_IB_HCA=mlx5",
    ).pool("mine")  # fmt: skip
    assert found.devices_per_node == 4
    assert found.node_selector == {"rack": "r1"}
    assert found.environment["NCCL_IB_HCA"] == "mlx5"
    assert found.environment["NCCL_DEBUG"] == "WARN"
    assert found.memory == "1500Gi"


def test_an_unwanted_pool_can_be_taken_away(tmp_path: Path) -> None:
    assert "h100" not in settings(tmp_path, *S3, "pools.h100=null").pools
