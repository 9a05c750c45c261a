"""skaffold.yaml fits Skaffold's schema, the images as they are, and the chart's values."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.conftest import ROOT

STAGES = {"data", "train", "eval", "serving", "operator"}
CHART = ROOT / "charts/fengshenbang"
SCHEMA = json.loads((ROOT / "tests/fixtures/skaffold-v4beta14.json").read_text("utf-8"))
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
PROFILES = {profile["name"]: profile for profile in CONFIG["profiles"]}


def problems(config: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(config)]


def with_profiles(*names: str) -> dict[str, Any]:
    """Apply the JSON patches of profiles as Skaffold does; a place that is not there fails."""
    config = copy.deepcopy(CONFIG)
    for name in names:
        for patch in PROFILES[name]["patches"]:
            *path, last = patch["path"].split("/")[1:]
            target: Any = config
            for key in path:
                target = target[int(key) if isinstance(target, list) else key]
            if last == "-":
                target.append(patch["value"])
            else:
                assert (last in target) is (patch["op"] == "replace"), patch
                target[last] = patch["value"]
    return config


def artifacts(config: dict[str, Any] = CONFIG) -> dict[str, dict[str, Any]]:
    return {item["image"]: item for item in config["build"]["artifacts"]}


def release(config: dict[str, Any] = CONFIG) -> dict[str, Any]:
    (only,) = config["deploy"]["helm"]["releases"]
    return only


@dataclass(frozen=True)
class BuildStage:
    """One FROM of a Dockerfile."""

    start: str
    text: str

    @property
    def arguments(self) -> set[str]:
        return set(re.findall(r"^ARG (\w+)", self.text, re.MULTILINE))

    @property
    def sources(self) -> set[str]:
        return {self.start, *re.findall(r"\bfrom=(\w[\w-]*)", self.text)}


@cache
def build_stages(path: str) -> dict[str, BuildStage]:
    """Return the stages of a Dockerfile by name; the last one is also named ""."""
    found: dict[str, BuildStage] = {}
    for part in re.split(r"^(?=FROM )", read(path), flags=re.MULTILINE)[1:]:
        start, name = re.findall(r"^FROM (\S+)(?: AS (\S+))?", part)[0]
        found[name or ""] = found[""] = BuildStage(start, part)
    return found


def used_stages(artifact: dict[str, Any]) -> list[BuildStage]:
    """Return the stages that the target of an artifact is made of."""
    stages = build_stages(artifact["docker"]["dockerfile"])
    waiting, found = [artifact["docker"].get("target", "")], []
    while waiting:
        if (stage := stages.get(waiting.pop())) is not None:
            found.append(stage)
            waiting += stage.sources
    return found


def images_of(stages: Iterable[BuildStage]) -> set[str]:
    """Return the arguments that stages start from, without those of other people's images."""
    named = {name for stage in stages for name in re.findall(r"^\$\{(\w+)\}$", stage.start)}
    return named - {"BASE_IMAGE", "BUILD_IMAGE"}


def arguments_given(artifact: dict[str, Any]) -> dict[str, str]:
    return artifact["docker"].get("buildArgs", {})


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("names", [(), ("dev",), ("cpu",), ("gpu",), ("dev", "cpu")])
def test_it_is_what_skaffold_v4beta14_reads(names: tuple[str, ...]) -> None:
    assert CONFIG["apiVersion"] == "skaffold/v4beta14"
    assert not problems(with_profiles(*names))


@pytest.mark.parametrize("path", [(), ("build",), ("deploy",), ("deploy", "helm")])
def test_the_schema_refuses_unknown_keys(path: tuple[str, ...]) -> None:
    config = copy.deepcopy(CONFIG)
    target: Any = config
    for key in path:
        target = target[key]
    target["typo"] = 1
    assert problems(config)


def test_there_is_one_artifact_for_each_stage_and_the_rest_is_the_base() -> None:
    named = {image.removeprefix("fengshenbang/") for image in artifacts()}
    assert {name for name in named if not name.startswith("base-")} == STAGES
    found = {path.parent.name for path in ROOT.glob("images/*/Dockerfile")}
    assert found == STAGES | {"base"}
    for stage in STAGES:
        artifact = artifacts()[f"fengshenbang/{stage}"]
        assert artifact["docker"]["dockerfile"] == f"images/{stage}/Dockerfile"
        assert "target" not in artifact["docker"]


@pytest.mark.parametrize("image", artifacts())
def test_targets_are_stages_of_the_dockerfile(image: str) -> None:
    docker = artifacts()[image]["docker"]
    assert docker.get("target", "") in build_stages(docker["dockerfile"])


@pytest.mark.parametrize("image", artifacts())
def test_every_image_that_a_target_is_made_of_is_required(image: str) -> None:
    artifact = artifacts()[image]
    required = {item["alias"]: item["image"] for item in artifact.get("requires", ())}
    used = images_of(used_stages(artifact))
    assert set(required) == used
    for alias, name in required.items():
        assert name in artifacts()
        part = alias.removesuffix("_IMAGE").lower()
        assert name in (f"fengshenbang/{part}", f"fengshenbang/base-{part}")
    # Skaffold looks at every image that a Dockerfile names, those of other targets too.
    others = images_of(build_stages(artifact["docker"]["dockerfile"]).values()) - used
    given = arguments_given(artifact)
    assert {name for name, value in given.items() if value == "scratch"} == others


@pytest.mark.parametrize(
    ("names", "variant"), [((), "gpu"), (("gpu",), "gpu"), (("cpu",), "cpu"), (("dev",), "gpu")]
)
def test_a_variant_reaches_every_target_that_asks_for_it_and_the_tag(
    names: tuple[str, ...], variant: str
) -> None:
    config = with_profiles(*names)
    assert config["build"]["tagPolicy"]["customTemplate"]["template"].startswith(f"{variant}-")
    for image, artifact in artifacts(config).items():
        known = {name for stage in used_stages(artifact) for name in stage.arguments}
        given = {key: text for key, text in arguments_given(artifact).items() if text != "scratch"}
        assert set(given) <= known, image
        assert given.get("VARIANT") == (variant if "VARIANT" in known else None), image


def test_the_torch_of_the_cpu_variant_comes_from_where_images_build_takes_it() -> None:
    (index,) = re.findall(r"TORCH_INDEX=\$\{TORCH_INDEX:-(.+?)\}", read("images/build"))
    taking = {
        image: arguments_given(artifact).get("TORCH_INDEX")
        for image, artifact in artifacts(with_profiles("cpu")).items()
        if any("TORCH_INDEX" in stage.arguments for stage in used_stages(artifact))
    }
    assert taking == {"fengshenbang/base-torch": index}


def lookup(values: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


@pytest.mark.parametrize("names", [(), ("dev",), ("cpu",), ("gpu",)])
def test_every_value_that_is_set_is_one_of_the_chart(names: tuple[str, ...]) -> None:
    only = release(with_profiles(*names))
    for path, value in {**only["setValues"], **only["setValueTemplates"]}.items():
        assert type(value) is type(lookup(VALUES, path)), path


def test_repository_tag_and_digest_of_each_stage_come_from_its_artifact() -> None:
    assert set(VALUES["images"]) == STAGES
    templates = release()["setValueTemplates"]
    for stage in STAGES:
        assert VALUES["images"][stage]["repository"] == f"fengshenbang/{stage}"
        for key, variable in (("repository", "REPO"), ("tag", "TAG"), ("digest", "DIGEST")):
            expected = f"{{{{.IMAGE_{variable}_fengshenbang_{stage}}}}}"
            assert templates[f"images.{stage}.{key}"] == expected


def test_the_chart_and_what_is_forwarded_exist() -> None:
    assert ROOT / release()["chartPath"] == CHART
    assert (CHART / "Chart.yaml").is_file()
    templates = "\n---\n".join(
        path.read_text(encoding="utf-8") for path in sorted(CHART.glob("templates/**/*.yaml"))
    )
    services = {
        name: part
        for part in templates.split("\n---\n")
        if (name := service_name(part)) is not None
    }
    for item in with_profiles("dev")["portForward"]:
        assert item["namespace"] == release()["namespace"]
        ports = re.findall(r"\bport: (\d+)", services[item["resourceName"]])
        assert str(item["port"]) in ports, item


def service_name(text: str) -> str | None:
    """Return the name of a Service in a template."""
    if not re.search(r"^kind: Service$", text, re.MULTILINE):
        return None
    found = re.search(r"^  name: (\S+)$", text, re.MULTILINE)
    return found[1] if found else None


def test_what_helm_test_runs_is_there() -> None:
    (hook,) = CONFIG["deploy"]["helm"]["hooks"]["after"]
    command = hook["host"]["command"][-1]
    assert command.startswith(
        f"helm test {release()['name']} --namespace {release()['namespace']} "
    )
    assert list(CHART.glob("templates/tests/*.yaml"))
    templates = [path.read_text(encoding="utf-8") for path in CHART.glob("templates/**/*.*")]
    assert any(re.search(r"helm\.sh/hook: \"?test\b", text) for text in templates)
