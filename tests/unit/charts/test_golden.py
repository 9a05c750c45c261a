"""The whole chart over the matrix of values, against golden files."""

from __future__ import annotations

import copy

import pytest
import yaml

from operators.crds import crd_files
from pipelines.compile import PIPELINES
from tests.helpers.golden import assert_golden
from tests.helpers.helm import (
    CHART,
    S3,
    Manifest,
    crd_templates,
    pod_specs,
    render,
    template,
)
from tests.unit.charts.matrix import MATRIX

pytestmark = pytest.mark.helm


COMPONENT = "app.kubernetes.io/component"
COMMON = {
    "app.kubernetes.io/name": "fengshenbang",
    "app.kubernetes.io/instance": "fsb",
    "app.kubernetes.io/part-of": "fengshenbang",
    "app.kubernetes.io/version": "0.1.0",
    "app.kubernetes.io/managed-by": "Helm",
    "helm.sh/chart": "fengshenbang-0.1.0",
}


def shortened(manifest: Manifest) -> Manifest:
    """Return a manifest without what all have, and without the text of scripts."""
    short = copy.deepcopy(manifest)
    labels = short["metadata"]["labels"]
    if not set(labels) - set(COMMON) - {COMPONENT}:
        short["metadata"].pop("labels")
    for spec in pod_specs([short]).values():
        for container in spec["containers"]:
            container["args"] = [arg.split("\n", 1)[0] for arg in container.get("args", ())]
    return short


@pytest.mark.parametrize("name", MATRIX)
def test_rendered_manifests(request: pytest.FixtureRequest, name: str) -> None:
    manifests = sorted(
        map(shortened, render(*MATRIX[name])),
        key=lambda m: (m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]),
    )
    assert_golden(request, f"charts/{name}.json", manifests)


@pytest.mark.parametrize("name", MATRIX)
def test_every_object_says_whose_it_is(name: str) -> None:
    for item in render(*MATRIX[name]):
        labels = item["metadata"]["labels"]
        assert COMPONENT in labels
        if item["kind"] != "Pod":  # a pod has the labels that policies and selectors name
            assert COMMON.items() <= labels.items(), item["metadata"]["name"]


@pytest.mark.parametrize("name", MATRIX)
def test_no_object_is_made_twice(name: str) -> None:
    keys = [
        (m["apiVersion"], m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"])
        for m in render(*MATRIX[name])
    ]
    assert len(keys) == len(set(keys))


def test_templates_of_the_definitions_are_current() -> None:
    for name, text in crd_templates().items():
        assert (CHART / "templates/crds" / name).read_text(encoding="utf-8") == text, name
    assert {path.name for path in (CHART / "templates/crds").iterdir()} == set(crd_templates())


def test_definitions_come_out_as_they_went_in_and_are_kept() -> None:
    wanted = {item["metadata"]["name"]: item for item in map(yaml.safe_load, crd_files().values())}
    found = {
        item["metadata"]["name"]: item
        for item in yaml.safe_load_all(template(*S3))
        if item and item["kind"] == "CustomResourceDefinition"
    }
    assert found == wanted
    for item in found.values():
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "CustomResourceDefinition" not in template("crds.install=false", *S3)


def test_the_volume_of_the_development_store_is_kept() -> None:
    claims = [m for m in render("storage.dev.enabled=true") if m["kind"] == "PersistentVolumeClaim"]
    assert claims[0]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [
        m
        for m in render("storage.dev.enabled=true", "storage.dev.size=")
        if m["kind"] == "PersistentVolumeClaim"
    ]


def test_compiled_pipelines_become_resources_with_the_releases_images() -> None:
    manifests = render(
        *S3, "pipelines.upload=kubernetes", "image.registry=mirror.local", "storage.credentialsSecret=mine",
    )  # fmt: skip
    versions = [m for m in manifests if m["kind"] == "PipelineVersion"]
    pipelines = {m["metadata"]["name"] for m in manifests if m["kind"] == "Pipeline"}
    assert len(versions) == len(pipelines) == len(PIPELINES)
    for version in versions:
        assert version["metadata"]["namespace"] == "kubeflow"
        assert version["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert version["spec"]["pipelineName"] in pipelines
        text = yaml.safe_dump(version)
        assert "image: mirror.local/fengshenbang/data:0.1.0" in text
        assert "image: fengshenbang/" not in text
        assert "fengshenbang-s3" not in text


def test_other_images_are_another_version_of_a_pipeline() -> None:
    def names(*sets: str) -> set[str]:
        manifests = render(*S3, "pipelines.upload=kubernetes", *sets)
        return {m["metadata"]["name"] for m in manifests if m["kind"] == "PipelineVersion"}

    assert names() == names()
    assert not names() & names("image.tag=v2")
    assert not names("image.tag=v3") & names("image.tag=v2")
