from __future__ import annotations

import pytest
from kfp.dsl import TaskConfig

from pipelines.passthrough import gang_resources, pod_overrides
from pyfsb.errors import ConfigError


def test_nothing_set_changes_nothing() -> None:
    """What kfp.local hands over."""
    assert pod_overrides(TaskConfig()) == gang_resources(TaskConfig()) == {}
    assert pod_overrides(None) == gang_resources(None) == {}


def test_what_an_author_set_has_the_words_of_the_custom_resource() -> None:
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    volume = {"name": "extra", "persistentVolumeClaim": {"claimName": "extra"}}
    mount = {"name": "extra", "mountPath": "/extra"}
    config = TaskConfig(
        node_selector={"disk": "fast"}, tolerations=[toleration], affinity=affinity,
        volumes=[volume], volume_mounts=[mount], env=[{"name": "NCCL_DEBUG", "value": "INFO"}],
    )  # fmt: skip
    assert pod_overrides(config) == {
        "nodeSelector": {"disk": "fast"}, "tolerations": [toleration], "affinity": affinity,
        "volumes": [volume], "volumeMounts": [mount],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
    }  # fmt: skip


def test_the_launchers_own_variables_stay_with_it() -> None:
    """KFP hands over the variables from secrets and fields, too."""
    secret = {"secretKeyRef": {"name": "fengshenbang-s3", "key": "AWS_REGION"}}
    config = TaskConfig(
        env=[
            {"name": "AWS_REGION", "valueFrom": secret},
            {"name": "FSB_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        ]
    )
    assert pod_overrides(config) == {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, {}),
        ({"requests": {"cpu": "1", "memory": "2Gi"}}, {"cpu": "1", "memory": "2Gi"}),
        (
            {"requests": {"cpu": "1"}, "limits": {"cpu": "500m", "nvidia.com/gpu": "8"}},
            {"cpu": "500m", "devices": 8},
        ),
        ({"limits": {"huawei.com/Ascend910": 2}}, {"devices": 2}),
    ],
)
def test_resources(resources: dict[str, object], expected: dict[str, object]) -> None:
    assert gang_resources(TaskConfig(resources=resources)) == expected


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"a.com/x": 1, "b.com/y": 1}, "ask for a.com/x and b.com/y; expected one kind"),
        ({"a.com/x": "500m"}, "a.com/x = '500m'; expected a whole number"),
        ({"memory": "lots"}, "memory = 'lots'"),
    ],
)
def test_what_cannot_be_asked_for(limits: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        gang_resources(TaskConfig(resources={"limits": limits}))
