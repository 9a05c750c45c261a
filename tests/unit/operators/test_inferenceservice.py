"""InferenceServices as a whole; the API server checks the fields (`fieldValidation: Strict`)."""

from __future__ import annotations

from typing import Any

import pytest

from operators.builders.inferenceservice import build_inference_service
from operators.served.plan import Checkpoint, Service, plan_service
from operators.settings import OperatorSettings
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.resources.kinds import ServedModelSpec
from pyfsb.schema import parse
from tests.helpers.golden import assert_golden
from tests.unit.operators.test_gang import make_settings

CHECKPOINT = Checkpoint(uri="s3://bucket/v1/", digest="sha256:1", version=7)


def make_service(
    settings: OperatorSettings | None = None, checkpoint: Checkpoint = CHECKPOINT, **spec: Any
) -> Service:
    parsed = parse(ServedModelSpec, {"gate": "off", "model": "x", **spec}, source="spec")
    return plan_service(
        name="sentiment", namespace="team", spec=parsed, checkpoint=checkpoint,
        settings=settings or make_settings(),
    )  # fmt: skip


def build(settings: OperatorSettings | None = None, **spec: Any) -> dict[str, Any]:
    settings = settings or make_settings()
    return build_inference_service(make_service(settings, **spec), settings)


def test_a_gpu_service_is_golden(request: pytest.FixtureRequest) -> None:
    settings = make_settings(pullSecrets=["registry"], environment={"HF_ENDPOINT": "https://m"})
    manifest = build(
        settings, pool="a100", image="mine:2", resources={"sharedMemory": "1Gi"},
        scale={"minReplicas": 1, "maxReplicas": 3, "targetCpuPercent": 60},
        serving={"maxBatchRows": 8, "requestTimeoutSeconds": 9},
    )  # fmt: skip
    assert_golden(request, "inferenceservice_a100.json", manifest)


def test_pods_pass_the_restricted_standard() -> None:
    predictor = build()["spec"]["predictor"]
    pod, container = predictor["securityContext"], predictor["model"]["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert predictor["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/v1", "fsb+s3://bucket/a/v1/"),
        ("s3://bucket/a/v1/", "fsb+s3://bucket/a/v1/"),
        ("pvc://disk/a/v1/", "pvc://disk/a/v1"),
    ],
)
def test_the_storage_uri_is_what_kserve_fetches(uri: str, expected: str) -> None:
    predictor = build(checkpoint=Checkpoint(uri=uri))["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == expected
    assert predictor["annotations"]["fengshenbang.io/checkpoint"] == uri


def test_a_copy_gets_one_device_and_its_share_of_the_node() -> None:
    gpu = {"nvidia.com/gpu": "1", "cpu": "12000m", "memory": "115200Mi"}
    assert make_service(pool="a100").limits == gpu
    assert make_service(pool="a100", resources={"devices": 2}).limits["cpu"] == "24000m"
    assert make_service(pool="a100", resources={"devices": 0}).limits == {
        "cpu": "12000m", "memory": "115200Mi",
    }  # fmt: skip
    assert make_service(resources={"cpu": "2"}).limits == {"cpu": "2", "memory": "4Gi"}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"pool": "a10"}, UnknownNameError, "known: a100, default"),
        ({"resources": {"devices": 1}}, ConfigError, "has no accelerators"),
        ({"checkpoint": Checkpoint(uri="/tmp/x")}, ConfigError, "pods share no disk; expected s3"),
    ],
)
def test_what_pods_cannot_serve_is_named(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make_service(**changes)
