"""The pod template: what every pod carries, and that nothing makes it leave PSS restricted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from operators.builders.pods import RESTRICTED_VOLUMES, build_pod_template, build_spec_map
from operators.gang import Gang, plan_gang
from operators.settings import OperatorSettings
from pyfsb.errors import ConfigError
from pyfsb.resources.kinds import TrainingRunSpec
from pyfsb.schema import parse

IMAGES = {stage: f"r/{stage}:1" for stage in ("data", "train", "eval", "serving", "operator")}
RDMA = {
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "deviceResource": "nvidia.com/gpu", "devicesPerNode": 8, "cpu": "96", "memory": "900Gi",
    "sharedMemory": "64Gi", "extraResources": {"rdma/hca_shared_devices_a": "1"},
    "capabilities": ["IPC_LOCK"], "annotations": {"k8s.v1.cni.cncf.io/networks": "rdma-net"},
    "environment": {"NCCL_IB_HCA": "mlx5", "NCCL_SOCKET_IFNAME": "eth0"},
    "priorityClass": "training", "runtimeClass": "nvidia",
}  # fmt: skip
PROGRESS = {"progressUrl": "https://progress.fsb:8090/", "progressCertificate": "progress-ca"}


def make_settings(**changes: Any) -> OperatorSettings:
    value = {"images": IMAGES, "pools": {"default": {}, "rdma": RDMA}, **changes}
    return parse(OperatorSettings, value, source="settings")


def make_gang(settings: OperatorSettings, **spec: Any) -> Gang:
    run = {
        "name": "demo", "output": "s3://bucket/demo", "model": {"name": "Wenzhong-GPT2-110M"},
        "data": {"root": "s3://bucket/raw", "corpus": ["*.jsonl"]}, **spec.pop("run", {}),
    }  # fmt: skip
    parsed = parse(TrainingRunSpec, {"run": run, **spec}, source="spec")
    return plan_gang(
        kind="TrainingRun", name="demo", namespace="team", spec=parsed, settings=settings
    )


def make_template(settings: OperatorSettings | None = None, **spec: Any) -> dict[str, Any]:
    settings = settings or make_settings()
    template = build_pod_template(make_gang(settings, **spec), settings)
    manifest: dict[str, Any] = client.ApiClient().sanitize_for_serialization(template)
    return manifest


def environment_of(template: dict[str, Any]) -> dict[str, str]:
    (container,) = template["spec"]["containers"]
    names = [variable["name"] for variable in container["env"]]
    assert len(set(names)) == len(names)
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def violations(template: dict[str, Any]) -> list[str]:
    """Return what Pod Security Standard `restricted` forbids of a pod template.

    Source: kubernetes.io, "Pod Security Standards", Kubernetes 1.35.
    """
    pod = template["spec"]
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    for volume in pod.get("volumes", ()):
        found += [f"volume {k}" for k in volume if k != "name" and k not in RESTRICTED_VOLUMES]
    context = pod.get("securityContext", {})
    if context.get("sysctls"):
        found.append("sysctls")
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        own = {**context, **container.get("securityContext", {})}
        capabilities = own.get("capabilities", {})
        checks = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": own.get("runAsNonRoot") is True,
            "runAsUser": own.get("runAsUser") != 0,
            "seccomp": own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "drop": "ALL" in capabilities.get("drop", ()),
            "add": set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
            "procMount": own.get("procMount") in (None, "Default"),
        }
        found += [name for name, is_fine in checks.items() if not is_fine]
    return found


VOLUMES = st.sampled_from([
    {"name": "scratch", "emptyDir": {}},
    {"name": "disk", "persistentVolumeClaim": {"claimName": "c"}},
    {"name": "keys", "secret": {"secretName": "s"}},
])  # fmt: skip


@given(
    progress=st.booleans(), certificates=st.booleans(), nodes=st.integers(1, 3),
    claim=st.booleans(), volumes=st.lists(VOLUMES, unique_by=lambda v: v["name"]),
)  # fmt: skip
def test_whatever_is_asked_pods_pass_the_restricted_standard(
    progress: bool, certificates: bool, nodes: int, claim: bool, volumes: list[dict[str, Any]]
) -> None:
    settings = make_settings(
        **(PROGRESS if progress else {}), certificates="ca" if certificates else None
    )
    template = make_template(
        settings,
        nodes=nodes,
        run={"output": "pvc://disk.a/x"} if claim else {},
        pod={
            "volumes": volumes,
            "volumeMounts": [
                {"name": v["name"], "mountPath": f"/mnt/{v['name']}"} for v in volumes
            ],
        },
    )
    assert violations(template) == []
    spec = template["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(set(names)) == len(names)
    assert all("." not in name and len(name) <= 63 for name in names)
    paths = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    assert len(set(paths)) == len(paths)
    assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == set(names)


def test_only_a_pool_with_capabilities_leaves_the_standard() -> None:
    assert violations(make_template(pool="rdma")) == ["add"]
    context = make_template(pool="rdma")["spec"]["containers"][0]["securityContext"]
    assert context["capabilities"] == {"add": ["IPC_LOCK"], "drop": ["ALL"]}


def test_the_checker_sees_what_is_wrong() -> None:
    template = make_template()
    template["spec"]["hostNetwork"] = True
    template["spec"]["volumes"].append({"name": "x", "hostPath": {"path": "/"}})
    template["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    del template["spec"]["securityContext"]["seccompProfile"]
    assert violations(template) == [
        "hostNetwork", "volume hostPath", "allowPrivilegeEscalation", "seccomp",
    ]  # fmt: skip


def test_labels_say_whose_pod_it_is() -> None:
    template = make_template(pool="rdma")
    assert template["metadata"]["labels"] == {
        "fengshenbang.io/run": "demo", "fengshenbang.io/kind": "TrainingRun",
        "app.kubernetes.io/part-of": "fengshenbang", "app.kubernetes.io/component": "gang",
    }  # fmt: skip
    assert template["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == "rdma-net"


def test_a_pod_reports_with_a_token_for_that_only() -> None:
    template = make_template(make_settings(**PROGRESS))
    (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == "fsb-progress"]
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {
            "audience": "fengshenbang-progress", "expirationSeconds": 3600, "path": "token"}},
        {"configMap": {
            "name": "progress-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}],
            "optional": True}},
    ]  # fmt: skip
    folder = "/var/run/secrets/fengshenbang"
    (mount,) = [
        m for m in template["spec"]["containers"][0]["volumeMounts"] if m["name"] == "fsb-progress"
    ]
    assert (mount["mountPath"], mount["readOnly"]) == (folder, True)
    environment = environment_of(template)
    assert environment["KUBEFLOW_TRAINER_SERVER_URL"] == (
        "https://progress.fsb:8090/v1/TrainingRun/team/demo"
    )
    assert environment["KUBEFLOW_TRAINER_SERVER_TOKEN"] == f"{folder}/token"
    assert environment["KUBEFLOW_TRAINER_SERVER_CA_CERT"] == f"{folder}/ca.crt"


def test_without_a_server_there_is_no_token() -> None:
    template = make_template()
    assert not [v for v in template["spec"]["volumes"] if "projected" in v]
    assert not [name for name in environment_of(template) if name.startswith("KUBEFLOW")]
    plain = make_template(make_settings(progressUrl="http://progress:8090"))
    assert "KUBEFLOW_TRAINER_SERVER_CA_CERT" not in environment_of(plain)


def test_a_private_authority_is_trusted_by_every_client() -> None:
    environment = environment_of(make_template(make_settings(certificates="ca")))
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        assert environment[name] == "/etc/fengshenbang-ca/ca.crt"
    assert "SSL_CERT_FILE" not in environment_of(make_template())
    own = make_settings(certificates="ca", environment={"SSL_CERT_FILE": "/mnt/all.crt"})
    assert environment_of(make_template(own))["SSL_CERT_FILE"] == "/mnt/all.crt"


@pytest.mark.parametrize(
    ("cpu", "processes", "threads"), [("4", 2, "2"), ("500m", 1, "1"), ("3", 4, "1")]
)
def test_threads_follow_the_limit_not_the_node(cpu: str, processes: int, threads: str) -> None:
    template = make_template(resources={"cpu": cpu}, processesPerNode=processes)
    assert environment_of(template)["OMP_NUM_THREADS"] == threads


def test_the_resource_has_the_last_word_on_variables() -> None:
    secret = {"secretKeyRef": {"name": "s", "key": "k"}}
    template = make_template(
        pool="rdma",
        pod={
            "env": [
                {"name": "OMP_NUM_THREADS", "value": "7"},
                {"name": "NCCL_IB_HCA", "valueFrom": secret},
            ]
        },
    )
    environment = environment_of(template)
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"
    assert environment["NCCL_SOCKET_IFNAME"] == "eth0"
    assert template["spec"]["containers"][0]["env"][-1] == {
        "name": "NCCL_IB_HCA",
        "valueFrom": secret,
    }


def test_selectors_tolerations_and_affinity_add_up() -> None:
    affinity = {"podAffinity": {}}
    spec = make_template(
        pool="rdma",
        pod={
            "nodeSelector": {"rack": "r1"}, "affinity": affinity,
            "tolerations": [{"key": "team", "operator": "Exists"}],
        },
    )["spec"]  # fmt: skip
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "rack": "r1"}
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["nvidia.com/gpu", "team"]
    assert spec["affinity"] == affinity


def test_own_scratch_space_takes_the_place_of_ours() -> None:
    spec = make_template(
        pod={
            "volumes": [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": {}}}],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp/"}],
        }
    )["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts == {"fsb-spec": "/etc/fengshenbang", "fsb-shm": "/dev/shm", "tmp": "/tmp/"}
    assert "fsb-tmp" not in {volume["name"] for volume in spec["volumes"]}


def volume(kind: str = "emptyDir", name: str = "v") -> dict[str, Any]:
    return {"volumes": [{"name": name, kind: {}}]}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"resources": {"memory": "1Gi", "sharedMemory": "1024Mi"}}, "sharedMemory = 1024Mi: /dev/shm is a part"),
        ({"pod": volume("hostPath")}, "v is a hostPath; pods may have configMap"),
        ({"pod": volume(name="fsb-tmp")}, "expected one that does not begin with fsb-"),
        ({"pod": {"volumes": [{"emptyDir": {}}]}}, "name ''"),
        ({"pod": {"volumeMounts": [{"name": "v", "mountPath": "/x"}]}}, "'v' is none of pod.volumes"),
        (
            {"pod": {**volume(), "volumeMounts": [{"name": "v", "mountPath": "/etc/fengshenbang/x"}]}},
            "expected an absolute path outside /etc/fengshenbang",
        ),
        ({"pod": {**volume(), "volumeMounts": [{"name": "v", "mountPath": "x"}]}}, "absolute path"),
        ({"pod": {"env": [{"value": "x"}]}}, "has no name"),
    ],
)  # fmt: skip
def test_what_a_pod_cannot_have_is_named(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_template(**spec)


def test_a_pool_that_leaves_the_standard_may_mount_the_host() -> None:
    assert make_template(pool="rdma", pod=volume("hostPath"))


def test_the_spec_map_is_labelled() -> None:
    found = build_spec_map(make_gang(make_settings()))
    assert found.metadata.labels == {"fengshenbang.io/run": "demo"}
    assert found.immutable is True
