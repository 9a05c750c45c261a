"""The chart: its place, `helm` as a subprocess, its generated templates."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.crds import crd_files

CHART = Path(__file__).parent.parent.parent / "charts/fengshenbang"
APIS = (
    "kubeflow.org/v1/PyTorchJob",
    "serving.kserve.io/v1beta1/InferenceService",
    "serving.kserve.io/v1alpha1/ClusterServingRuntime",
    "serving.kserve.io/v1alpha1/ClusterStorageContainer",
    "argoproj.io/v1alpha1/Workflow",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "pipelines.kubeflow.org/v2beta1/Pipeline",
    "pipelines.kubeflow.org/v2beta1/PipelineVersion",
)
"""What a cluster with everything serves."""
S3 = ("storage.bucket=models", "storage.s3.endpoint=https://s3.example.com:9443")
Manifest = dict[str, Any]


def helm_program() -> str:
    """Return the path of helm, from HELM or PATH; without one the test is skipped."""
    program = os.environ.get("HELM") or shutil.which("helm")
    if not program:
        pytest.skip("helm is neither in HELM nor on PATH")
    return program


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run(
        [helm_program(), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def template(*sets: str, apis: tuple[str, ...] = APIS) -> str:
    """Return the rendered text of the chart, as `helm install` would send it; kept by arguments."""
    return _template(sets, apis)


@lru_cache(maxsize=32)
def _template(sets: tuple[str, ...], apis: tuple[str, ...]) -> str:
    done = run_template(*sets, apis=apis)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_template(*sets: str, apis: tuple[str, ...] = APIS) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with values."""
    options = [word for value in sets for word in ("--set", value)]
    known = [word for api in apis for word in ("--api-versions", api)]
    return helm(
        "template", "fsb", str(CHART), "--namespace", "fengshenbang", "--kube-version", "1.35.4",
        *known, *options,
    )  # fmt: skip


def refusal(*sets: str, apis: tuple[str, ...] = APIS) -> str:
    """Return what helm says about values that it must refuse."""
    done = run_template(*sets, apis=apis)
    assert done.returncode != 0, "helm accepted it"
    return done.stderr


def render(*sets: str, apis: tuple[str, ...] = APIS) -> list[Manifest]:
    """Return the rendered manifests, without the CRDs, which have tests of their own."""
    text = template("crds.install=false", *sets, apis=apis)
    return [item for item in yaml.safe_load_all(text) if item]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the one manifest of a kind and name."""
    found = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def crd_templates() -> dict[str, str]:
    """Return the chart's templates of the CRDs: their text has nothing that helm would evaluate."""
    templates = {}
    for name, text in crd_files().items():
        literal = text.replace("{{", '{{ "{{" }}')
        templates[name] = f"{{{{- if .Values.crds.install }}}}\n{literal}{{{{- end }}}}\n"
    return templates


def pod_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return every pod spec by kind and name, KServe's containers among them."""
    specs = {}
    for item in manifests:
        name = f"{item['kind']}/{item['metadata'].get('namespace')}/{item['metadata']['name']}"
        if item["kind"] in ("Deployment", "Job"):
            specs[name] = item["spec"]["template"]["spec"]
        elif item["kind"] in ("Pod", "ClusterServingRuntime"):
            specs[name] = item["spec"]
        elif item["kind"] == "ClusterStorageContainer":
            specs[name] = {"containers": [item["spec"]["container"]]}
    return specs
