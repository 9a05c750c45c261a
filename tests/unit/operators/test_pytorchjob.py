"""PyTorchJobs as a whole, against goldens; the CRD's own schema checks them on a cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest

from operators.builders.pytorchjob import build_pytorchjob
from operators.settings import OperatorSettings
from tests.helpers.golden import assert_golden
from tests.unit.operators.test_pods import PROGRESS, make_gang, make_settings


def build(settings: OperatorSettings, **spec: Any) -> dict[str, Any]:
    is_suspended = spec.pop("is_suspended", False)
    return build_pytorchjob(make_gang(settings, **spec), settings, is_suspended=is_suspended)


def without_digest(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with a fixed name of the spec's map: its digest follows every default."""
    for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
        for volume in replica["template"]["spec"]["volumes"]:
            if volume["name"] == "fsb-spec":
                name = volume["configMap"]["name"]
                assert re.fullmatch("demo-[0-9a-f]{10}", name)
                volume["configMap"]["name"] = "demo-DIGEST"
    return manifest


def test_two_nodes_with_two_processes_on_cpu_are_golden(request: pytest.FixtureRequest) -> None:
    settings = make_settings(credentialsSecret="s3", progressUrl="http://progress.fsb:8090")
    manifest = build(
        settings, nodes=2, processesPerNode=2,
        resources={"cpu": "2", "memory": "2Gi", "sharedMemory": "256Mi"},
    )  # fmt: skip
    assert_golden(request, "pytorchjob_cpu.json", without_digest(manifest))


def test_a_gpu_pool_with_rdma_is_golden(request: pytest.FixtureRequest) -> None:
    settings = make_settings(
        **PROGRESS, credentialsSecret="s3", pullSecrets=["registry"], certificates="ca",
        environment={"HF_ENDPOINT": "https://mirror"},
    )  # fmt: skip
    manifest = build(
        settings, nodes=4, pool="rdma", run={"output": "pvc://disk/runs/demo"},
        pod={
            "nodeSelector": {"rack": "r1"},
            "volumes": [{"name": "scratch", "hostPath": {"path": "/mnt/nvme"}}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
            "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
        },
    )  # fmt: skip
    assert_golden(request, "pytorchjob_a100_rdma.json", without_digest(manifest))


def test_one_pod_has_no_worker_and_nothing_to_spread() -> None:
    manifest = build(make_settings(), is_suspended=True)
    assert list(manifest["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert manifest["spec"]["runPolicy"] == {"cleanPodPolicy": "Running", "suspend": True}
    pod = manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert "topologySpreadConstraints" not in pod


def test_master_and_workers_are_alike() -> None:
    replicas = build(make_settings(), nodes=5)["spec"]["pytorchReplicaSpecs"]
    assert {name: replica["replicas"] for name, replica in replicas.items()} == {
        "Master": 1, "Worker": 4,
    }  # fmt: skip
    assert replicas["Master"]["template"] == replicas["Worker"]["template"]
    assert {replica["restartPolicy"] for replica in replicas.values()} == {"ExitCode"}
