"""One release of the chart on a real cluster, with a store and real text in it.

Needs KUBECONFIG, kubectl and helm, the stage images on every node, and FSB_DATA. The Training
Operator and KServe are really there; of Argo, KFP and Prometheus only CRDs are installed, without
controllers, where the cluster has none.
"""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfsb import storage
from pyfsb.storage import s3 as s3_module
from tests.conftest import ROOT
from tests.e2e.kube import Kube, from_environment
from tests.helpers.specs import tiny_spec, write_spec

RELEASE = "fsb"
HOME = "fsb-e2e"
TEAMS = ("fsb-e2e-a", "fsb-e2e-b")
BUCKET = "s3://fengshenbang"
CHART = ROOT / "charts/fengshenbang"
FOREIGN = Path(__file__).parent / "foreign-crds.yaml"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
VOLUME = Path(__file__).parent / "volume.yaml"
FILES = (
    "rawcorpus/cluecorpussmall_sample.jsonl.gz", "clue/tnews_resplit/labelled_8000.json",
    "fewclue/tnews/test_public.json", "fewclue/tnews/test.json",
)  # fmt: skip
"""What a run reads of FSB_DATA."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(420))


@dataclass
class Platform:
    """The installed release."""

    kube: Kube
    values: dict[str, Any]
    figures: dict[str, float] = field(default_factory=dict)
    """Seconds that the summary shows."""

    def install(self, chart: Path, folder: Path) -> None:
        """Install or upgrade the release from a chart."""
        path = folder / "values.yaml"
        path.write_text(yaml.safe_dump(self.values))
        self.kube.run_helm(
            "upgrade", "--install", RELEASE, str(chart), "-n", HOME, "--create-namespace",
            "-f", str(path), "--wait", "--timeout", "2m",
        )  # fmt: skip


@pytest.fixture(scope="session")
def kube() -> Kube:
    return from_environment()


@pytest.fixture(scope="session")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def storage_class(kube: Kube) -> str | None:
    """None where the cluster has a default one, else one of our own with one local volume."""
    for item in json.loads(kube("get", "storageclass", "-o", "json"))["items"]:
        if DEFAULT_CLASS in item["metadata"].get("annotations", {}):
            return None
    node = kube("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    for manifest in yaml.safe_load_all(
        VOLUME.read_text().replace("NODE", node).replace("ID", uuid.uuid4().hex[:8])
    ):
        kube.apply(manifest)
    return "fsb-e2e"


@pytest.fixture(scope="session")
def values(storage_class: str | None) -> dict[str, Any]:
    """Values for a cluster of two small CPU nodes without a storage class."""
    prefix = os.environ.get("FSB_E2E_IMAGE_PREFIX") or "localhost/fengshenbang"
    tag = os.environ.get("FSB_E2E_IMAGE_TAG") or "e2e"
    stages = ("data", "train", "eval", "serving", "operator")
    small = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    return {
        "image": {"tag": tag},
        "images": {stage: {"repository": f"{prefix}/{stage}"} for stage in stages},
        "namespaces": list(TEAMS),
        "operator": {"namespaces": list(TEAMS)},
        "storage": {"dev": {"enabled": True, "size": "5Gi", "storageClass": storage_class}},
        "pools": {"default": {"cpu": "700m", "memory": "2Gi", "sharedMemory": "256Mi"}},
        "serving": {
            "resources": {
                "requests": {"cpu": "200m", "memory": "512Mi"},
                "limits": {"cpu": "700m", "memory": "2Gi"},
            },
            "drainSeconds": 5,
        },
        "leaderboard": {"resources": small},
        "pipelines": {"upload": "kubernetes", "namespace": HOME},
        "monitoring": {"enabled": True},
    }  # fmt: skip


@pytest.fixture(scope="session")
def platform(kube: Kube, values: dict[str, Any]) -> Iterator[Platform]:
    """Namespaces and what the cluster lacks; `test_01_install` installs the release."""
    for namespace in (HOME, *TEAMS):
        kube.apply(
            {
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": namespace,
                    "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                },
            }
        )  # fmt: skip
    for manifest in yaml.safe_load_all(FOREIGN.read_text()):
        if not kube.get("crd", manifest["metadata"]["name"]):
            kube.apply(manifest)
    yield Platform(kube, values)


@pytest.fixture(scope="session")
def store(platform: Platform, workdir: Path) -> Iterator[str]:
    """The release's object store, reached from here, with the real files in it."""
    data = os.environ.get("FSB_DATA")
    assert data, "set FSB_DATA to the folder with the benchmark files"
    kube = platform.kube
    secret = kube.get("secret", "fengshenbang-s3", TEAMS[0])
    assert secret
    keys = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    with (
        kube.forward(HOME, "svc/fengshenbang-s3", 9000) as port,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in keys.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
        patch.setenv("FSB_CACHE", str(workdir / "cache"))
        patch.setattr(storage, "_S3", s3_module.S3Backend())
        for name in FILES:
            storage.upload(Path(data, name), f"{BUCKET}/corpora/{name}")
        yield BUCKET


def cluster_spec(output: str, **changes: Any) -> dict[str, Any]:
    """Return a spec over the real files in the store, small enough for two cores."""
    return tiny_spec(
        output,
        **{
            "name": "e2e",
            "data__root": f"{BUCKET}/corpora",
            "data__corpus": ["rawcorpus/cluecorpussmall_sample.jsonl.gz"],
            "data__vocabulary": {"size": 4000},
            "batch": {"tokens": 2048, "micro_tokens": 2048},
            "training": {"max_steps": 60, "checkpoint_every_steps": 10},
            "evaluation": {
                "tasks": ["tnews"],
                "finetune": {
                    "optimizer": {"learning_rate": 0.003}, "batch": {"tokens": 1024},
                    "num_epochs": 1, "max_steps": 250, "max_tokens": 48,
                },
            },
            "serving": {"question": "中国女排夺得世界杯冠军"},
            **changes,
        },
    )  # fmt: skip


def write_cluster_spec(folder: Path, output: str, file: str = "spec.yaml", **changes: Any) -> Path:
    return write_spec(folder, cluster_spec(output, **changes), file)
