from __future__ import annotations

from typing import Any

import pytest
import yaml

from operators.builders.pods import build_spec_map
from operators.builders.pytorchjob import build_pytorchjob
from operators.gang import SPEC_PATH, Gang, plan_gang
from operators.settings import OperatorSettings, load_settings
from pyfsb.config import resolve_spec
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.resources import KINDS
from pyfsb.resources.kinds import GangSpec
from pyfsb.schema import parse
from tests.helpers.golden import assert_golden

SPECS = {kind.kind: kind.spec for kind in KINDS}
IMAGES = {stage: f"r/{stage}:1" for stage in ("data", "train", "eval", "serving", "operator")}
A100 = {
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "deviceResource": "nvidia.com/gpu", "devicesPerNode": 8, "cpu": "96", "memory": "900Gi",
    "sharedMemory": "64Gi", "environment": {"NCCL_SOCKET_IFNAME": "eth0"},
    "priorityClass": "training",
}  # fmt: skip


def make_settings(**changes: Any) -> OperatorSettings:
    value = {"images": IMAGES, "pools": {"default": {}, "a100": A100}, **changes}
    return parse(OperatorSettings, value, source="settings")


def make_run(**changes: Any) -> dict[str, Any]:
    return {
        "name": "demo", "output": "s3://bucket/demo", "model": {"name": "Wenzhong-GPT2-110M"},
        "data": {"root": "s3://bucket/raw", "corpus": ["*.jsonl"]}, **changes,
    }  # fmt: skip


def make_gang(settings: OperatorSettings | None = None, **spec: Any) -> Gang:
    run, kind = spec.pop("run", make_run()), spec.pop("kind", "TrainingRun")
    parsed = parse(SPECS[kind], {"run": run, **spec}, source="spec")
    assert isinstance(parsed, GangSpec)
    return plan_gang(
        kind=kind, name="demo", namespace="team", spec=parsed, settings=settings or make_settings()
    )


def test_two_nodes_of_a_gpu_pool_are_golden(request: pytest.FixtureRequest) -> None:
    settings = make_settings(credentialsSecret="s3", pullSecrets=["registry"], certificates="ca")
    gang = make_gang(settings, nodes=2, pool="a100")
    manifest = build_pytorchjob(gang, settings, is_suspended=False)
    assert_golden(request, "pytorchjob_a100.json", manifest)


def test_one_pod_has_no_worker_and_no_spread() -> None:
    manifest = build_pytorchjob(make_gang(), make_settings(), is_suspended=True)
    assert list(manifest["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert manifest["spec"]["runPolicy"]["suspend"] is True
    pod = manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert "topologySpreadConstraints" not in pod


def test_pods_pass_the_restricted_standard() -> None:
    manifest = build_pytorchjob(make_gang(nodes=2), make_settings(), is_suspended=False)
    for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True


def test_processes_follow_the_devices_then_the_spec() -> None:
    assert make_gang(pool="a100").processes_per_pod == 8
    assert make_gang(pool="a100", resources={"devices": 2}).limits["nvidia.com/gpu"] == "2"
    assert make_gang(run=make_run(parallelism={"num_processes": 3})).processes_per_pod == 3
    gang = make_gang(pool="a100", processesPerNode=4)
    assert gang.processes_per_pod == 4
    assert yaml.safe_load(gang.spec_text)["parallelism"]["num_processes"] == 4


def test_threads_follow_the_cores_that_a_pod_may_use() -> None:
    def read(**spec: Any) -> Any:
        return yaml.safe_load(make_gang(**spec).spec_text)

    assert read(pool="a100")["parallelism"]["threads_per_process"] == 12
    assert read(resources={"cpu": "500m"})["parallelism"]["threads_per_process"] == 1
    own = make_run(parallelism={"threads_per_process": 3})
    assert read(pool="a100", run=own)["parallelism"]["threads_per_process"] == 3
    data = {"kind": "DataPreparation", "resources": {"cpu": "6"}}
    assert read(**data)["data"]["num_processes"] == 6


def test_each_kind_runs_its_stage_in_its_image() -> None:
    data = make_gang(kind="DataPreparation", pool="a100")
    assert (data.image, data.command[:3]) == ("r/data:1", ("python3", "-m", "pyfsb.data"))
    assert data.processes_per_pod == 1
    assert "nvidia.com/gpu" not in data.limits
    scored = make_gang(kind="Evaluation")
    assert (scored.image, scored.kind) == ("r/eval:1", "Evaluation")
    assert scored.command[2] == "pyfsb.leaderboard.evaluating"
    assert make_gang(image="mine:1").image == "mine:1"


def test_the_stores_are_named_to_pods_that_can_reach_them() -> None:
    settings = make_settings(leaderboard="pvc://boards/x", modelStore="s3://bucket/models")
    gang = make_gang(settings)
    assert gang.environment["FSB_LEADERBOARD"] == "/mnt/claims/boards/x"
    assert gang.environment["FSB_MODEL_STORE"] == "s3://bucket/models"
    assert [claim.name for claim in gang.claims] == ["boards"]
    assert "FSB_MODEL_STORE" not in make_gang(make_settings(modelStore="/disk")).environment


def test_a_resources_own_settings_stand_beside_its_pools() -> None:
    own = {
        "nodeSelector": {"zone": "b"}, "tolerations": [{"key": "mine"}],
        "affinity": {"podAffinity": {}}, "volumes": [{"name": "v", "emptyDir": {}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}], "env": [{"name": "A", "value": "b"}],
    }  # fmt: skip
    gang = make_gang(pool="a100", pod=own)
    assert gang.node_selector == {**A100["nodeSelector"], "zone": "b"}
    assert gang.tolerations == (*A100["tolerations"], {"key": "mine"})
    assert gang.affinity == {"podAffinity": {}}
    assert (gang.extra_volumes, gang.extra_mounts) == (
        ({"name": "v", "emptyDir": {}},), ({"name": "v", "mountPath": "/v"},),
    )  # fmt: skip
    assert gang.extra_env == ({"name": "A", "value": "b"},)


def test_the_mounted_spec_is_one_that_pyfsb_reads() -> None:
    gang = make_gang()
    run = resolve_spec(gang.spec_text)
    assert (run.output, run.model.name) == ("s3://bucket/demo", "Wenzhong-GPT2-110M")
    spec_map = build_spec_map(gang)
    assert spec_map.data == {SPEC_PATH.rpartition("/")[2]: gang.spec_text}
    assert spec_map.metadata.name == gang.spec_name != make_gang(processesPerNode=2).spec_name


def test_claims_are_mounted() -> None:
    run = make_run(output="pvc://disk/runs/demo", data={"root": "pvc://raw", "corpus": ["*.txt"]})
    gang = make_gang(run=run)
    assert resolve_spec(gang.spec_text).output == "/mnt/claims/disk/runs/demo"
    assert {claim.name: claim.path for claim in gang.claims} == {
        "disk": "/mnt/claims/disk", "raw": "/mnt/claims/raw",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (
            {"pool": "a10"},
            UnknownNameError,
            r"unknown node pool \(known: a100, default\) 'a10'; did you mean 'a100'",
        ),
        ({"run": make_run(model={"name": "Wenzhong-GPT2-110"})}, UnknownNameError, "unknown model"),
        ({"run": make_run(output="/tmp/x")}, ConfigError, r"run.output = '/tmp/x': pods share no"),
        ({"resources": {"devices": 1}}, ConfigError, "pool 'default' has no accelerators"),
    ],
)
def test_what_pods_cannot_carry_is_named(
    spec: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make_gang(**spec)


def test_settings_are_read_and_their_errors_named(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"images": IMAGES, "pols": {}}))
    with pytest.raises(ConfigError, match="unknown key 'pols'; did you mean 'pools'"):
        load_settings(str(path))
    monkeypatch.delenv("FSB_OPERATOR_SETTINGS", raising=False)
    with pytest.raises(ConfigError, match="FSB_OPERATOR_SETTINGS is not set"):
        load_settings()
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(str(tmp_path / "none"))
