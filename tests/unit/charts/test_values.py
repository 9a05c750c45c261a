"""values.yaml and its schema, and what the chart refuses before anything is installed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.helm import (
    CHART,
    S3,
    crd_templates,
    helm,
    refusal,
    render,
    run_template,
    template,
)

pytestmark = pytest.mark.helm
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def objects(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)] if schema.get("type") == "object" else []
    for name, item in schema.get("properties", {}).items():
        found += objects(item, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        found += objects(schema["items"], f"{path}[]")
    return found


def test_every_object_of_ours_refuses_unknown_keys() -> None:
    parts = [*objects(SCHEMA), *((name, part) for name, part in SCHEMA["definitions"].items())]
    closed = [path for path, part in parts if "properties" in part]
    assert len(closed) > 20
    for path, part in parts:
        if "properties" in part and path not in (".limits[]",):
            assert part["additionalProperties"] is False, path


def test_every_value_has_a_default_and_a_description() -> None:
    def compare(schema: dict[str, Any], value: Any, path: str) -> None:
        schema = SCHEMA["definitions"].get(schema.get("$ref", "").split("/")[-1], schema)
        if "properties" not in schema or path.startswith((".pools", ".images.")):
            return
        for name, item in schema["properties"].items():
            place = f"{path}.{name}"
            if place == ".global" or "priorityClasses" in place or path.endswith("esources"):
                continue
            assert name in value, place
            assert item.get("description") or "$ref" in item, place
            compare(item, value[name], place)

    compare(SCHEMA, VALUES, "")


def test_every_value_is_used_by_a_template() -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in CHART.glob("templates/**/*")
        if path.is_file() and path.parent.name != "crds"
    )
    text += "".join(crd_templates().values())
    for path, part in objects(SCHEMA):
        for name in part.get("properties", {}):
            if name in ("global", "requests", "limits", "preemptionPolicy", "value", "description"):
                continue
            assert re.search(rf"\.{name}\b", text) or path == ".images", f"{path}.{name}"


@pytest.mark.parametrize(
    "typo",
    ["storge.bucket=x", "storage.bukket=x", "storage.s3.adressing=path", "operator.namespace=x",
     "pools.default.gpus=8", "images.train.name=x", "networkPolicies.enable=false",
     "serving.resources.request.cpu=1", "monitoring.dashboards.label=x"],
)  # fmt: skip
def test_a_typo_is_refused(typo: str) -> None:
    said = refusal(*S3, typo)
    names = re.findall(r"additional properties '(\w+)' not allowed", said)
    assert len(names) == 1
    assert names[0] in typo.partition("=")[0].split(".")


@pytest.mark.parametrize(
    "wrong",
    ["storage.s3.endpoint=s3.example.com", "storage.s3.addressing=host", "pipelines.upload=maybe",
     "images.train.digest=sha256:12", "pools.default.profile=b200", "nodeLabels=cloud",
     "pools.default.memory=4 GB", "image.pullPolicy=Sometimes", "namespaces={Team_A}",
     "storage.prefix=/abs/", "storage.prefix=/a/b", "storage.bucket=s3://models",
     "storage.volume.path=/models", "proxy.http=socks:http://x", "monitoring.servingSeconds=0", "certificates.pem=secret"],
)  # fmt: skip
def test_a_wrong_value_is_refused(wrong: str) -> None:
    assert "values don't meet the specifications" in refusal(*S3, wrong)


def test_lint_is_content() -> None:
    done = helm("lint", "--strict", str(CHART), "--set", ",".join(S3))
    assert done.returncode == 0, done.stdout + done.stderr


def test_storage_must_be_chosen_once() -> None:
    assert "set storage.bucket" in refusal()
    both = refusal(*S3, "storage.volume.claim=shared")
    assert "storage.bucket and storage.volume.claim are set; choose one" in both
    assert render("storage.dev.enabled=true")


def test_everything_missing_is_named_at_once() -> None:
    said = refusal(*S3, "monitoring.enabled=true", apis=())
    for api, remedy in (
        ("PyTorchJob", "Training Operator"),
        ("InferenceService", "serving.enabled=false"),
        ("ClusterStorageContainer", "serving.enabled=false"),
        ("Workflow", "pipelines.upload=none"),
        ("PrometheusRule", "monitoring.enabled=false"),
    ):
        assert re.search(rf"{api}.*{remedy}", said), api


def test_what_is_turned_off_is_not_asked_for() -> None:
    off = ("serving.enabled=false", "pipelines.upload=none")
    assert render(*S3, *off, apis=("kubeflow.org/v1/PyTorchJob",))
    assert render(*S3, "preflight.enabled=false", apis=())


def test_pipelines_as_resources_need_their_kinds() -> None:
    said = refusal(*S3, "pipelines.upload=kubernetes", apis=("kubeflow.org/v1/PyTorchJob",))
    assert "--pipelinesStoreKubernetes" in said


def test_a_namespace_that_nobody_looks_after_is_refused() -> None:
    said = refusal(*S3, "operator.namespaces={team-a}", "namespaces={team-a,team-b}")
    assert "team-b is not one of operator.namespaces (team-a)" in said


def test_versions_are_those_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"', project, re.MULTILINE)
    assert version
    assert chart["version"] == chart["appVersion"] == version[1]


def test_an_old_or_untried_kubernetes_is_refused() -> None:
    for version in ("1.33.0", "1.38.0"):
        done = helm(
            "template", "fsb", str(CHART), "--kube-version", version,
            "--set", f"preflight.enabled=false,{S3[0]}",
        )  # fmt: skip
        assert "is incompatible with Kubernetes" in done.stderr


def test_the_same_values_render_the_same_text() -> None:
    once, again = run_template(*S3).stdout, run_template(*S3).stdout
    assert once == again
    assert len(once) > 50_000


def test_templates_use_nothing_that_changes_between_renders() -> None:
    forbidden = re.compile(r"\b(lookup|rand\w+|genCA|gen\w*Cert|genPrivateKey|uuidv4|now|date)\b")
    for path in CHART.glob("templates/**/*"):
        if path.is_file() and path.parent.name != "crds":
            actions = re.findall(r"\{\{.*?\}\}", path.read_text(encoding="utf-8"), re.DOTALL)
            code = " ".join(a for a in actions if not a.lstrip("{- ").startswith("/*"))
            assert not forbidden.search(re.sub(r'"[^"]*"', "", code)), path.name


def test_templates_are_short() -> None:
    for path in CHART.glob("templates/**/*"):
        if path.is_file() and path.parent.name != "crds":
            assert path.read_text(encoding="utf-8").count("\n") <= 150, path.name


def test_notes_say_what_comes_next() -> None:
    done = helm(
        "install", "fsb", str(CHART), "--dry-run=client", "--namespace", "fengshenbang",
        "--set", f"preflight.enabled=false,{','.join(S3)}",
    )  # fmt: skip
    if done.returncode != 0:  # helm may ask the cluster for its version even here
        pytest.skip(done.stderr)
    notes = done.stdout.partition("NOTES:")[2]
    assert "helm test fsb -n fengshenbang" in notes
    assert "create secret generic fengshenbang-s3" in notes


def test_no_secret_is_rendered() -> None:
    for sets in (S3, ("storage.dev.enabled=true",)):
        assert all(item["kind"] != "Secret" for item in render(*sets))
        assert "AWS_SECRET_ACCESS_KEY=" not in template(*sets)
