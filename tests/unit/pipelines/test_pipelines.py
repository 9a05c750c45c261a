from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import yaml

from pipelines.compile import FOLDER, MANIFESTS, PIPELINES, compile_all, compile_pipeline
from pipelines.end_to_end import EXAMPLE
from pipelines.environment import OWN
from pipelines.local_engine import run, without_retries
from pyfsb.config import Stage, resolve_spec
from pyfsb.engines.cluster_resources import check_places
from pyfsb.engines.protocol import RunResult
from pyfsb.errors import ConfigError
from tests.conftest import ROOT
from tests.helpers.golden import assert_golden
from tests.helpers.specs import tiny_spec

LAUNCHERS = {"prepare", "train", "evaluate", "deploy"}


def documents(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return pipeline and platform of a committed file."""
    pipeline, platform = yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(name: str) -> dict[str, Any]:
    """Return the tasks of a committed pipeline, those in conditions included."""
    pipeline, _ = documents(name)
    dags = [pipeline["root"]["dag"]]
    dags += [part["dag"] for part in pipeline["components"].values() if "dag" in part]
    return {key: task for dag in dags for key, task in dag["tasks"].items()}


@pytest.fixture(scope="module")
def compiled() -> dict[str, str]:
    return compile_all()


def test_the_committed_files_are_what_the_sources_compile_to(compiled: dict[str, str]) -> None:
    committed = {
        path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in FOLDER.rglob("*.yaml")
    }
    assert committed == compiled


def test_the_charts_manifests_are_the_compiled_ones(compiled: dict[str, str]) -> None:
    chart = ROOT / "charts/fengshenbang/files/pipelines"
    for name in PIPELINES:
        text = (chart / f"{name}.yaml").read_text(encoding="utf-8")
        assert text == compiled[f"{MANIFESTS}/{name}.yaml"]


def test_the_forms_in_the_ui(request: pytest.FixtureRequest) -> None:
    forms = {
        name: documents(name)[0]["root"]["inputDefinitions"]["parameters"] for name in PIPELINES
    }
    assert_golden(request, "pipelines_forms.json", forms)
    for fields in forms.values():
        assert all(field["description"] for field in fields.values())


@pytest.mark.parametrize("name", PIPELINES)
def test_every_task_uses_one_image_and_installs_nothing(name: str) -> None:
    pipeline, _ = documents(name)
    executors = pipeline["deploymentSpec"]["executors"]
    assert {item["container"]["image"] for item in executors.values()} == {
        "fengshenbang/data:0.1.0"
    }
    assert "pip install" not in yaml.safe_dump(executors)


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pod_is_restricted_and_gets_its_keys_from_a_secret(name: str) -> None:
    _, platform = documents(name)
    for settings in platform.values():
        assert settings["securityContext"] == {
            "runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True,
        }  # fmt: skip
        keys, options = settings["secretAsEnv"][0], settings["configMapAsEnv"][0]
        assert (keys["secretName"], keys["optional"]) == ("fengshenbang-s3", True)
        assert (options["configMapName"], options["optional"]) == ("fengshenbang-pipelines", True)
        given = {item["envVar"] for part in (keys, options) for item in part["keyToEnv"]}
        assert given | {item["name"] for item in settings["fieldPathAsEnv"]} == OWN
        assert int(settings["activeDeadlineSeconds"]) > 0


@pytest.mark.parametrize("name", PIPELINES)
def test_launchers_are_tried_again_as_long_as_they_may_run_and_never_cached(name: str) -> None:
    """Argo counts the longest back-off from the start of the first try."""
    pipeline, platform = documents(name)
    for key, task in tasks(name).items():
        if key.startswith("condition"):
            continue
        assert not task["cachingOptions"].get("enableCache")
        executor = pipeline["components"][task["componentRef"]["name"]]["executorLabel"]
        deadline = platform[executor]["activeDeadlineSeconds"]
        if key in LAUNCHERS:
            assert task["retryPolicy"]["backoffMaxDuration"] == f"{deadline}s"
            assert int(deadline) >= 30 * 86400
        else:
            assert "retryPolicy" not in task


@pytest.mark.parametrize("name", PIPELINES)
def test_what_is_set_on_a_launcher_goes_to_its_pods(name: str) -> None:
    """A resource that we set on a launcher would be asked for by every pod of a training."""
    pipeline, _ = documents(name)
    for key, component in pipeline["components"].items():
        resources = (
            pipeline["deploymentSpec"]["executors"]
            .get(component.get("executorLabel"), {})
            .get("container", {})
            .get("resources")
        )
        if key.removeprefix("comp-") in LAUNCHERS:
            fields = {
                item["field"]: item.get("applyToTask")
                for item in component["taskConfigPassthroughs"]
            }
            assert fields == {
                "RESOURCES": None, "ENV": True, "KUBERNETES_AFFINITY": None,
                "KUBERNETES_TOLERATIONS": None, "KUBERNETES_NODE_SELECTOR": None,
                "KUBERNETES_VOLUMES": None,
            }  # fmt: skip
            assert resources is None
        elif "executorLabel" in component:
            assert "taskConfigPassthroughs" not in component
            assert resources["resourceCpuRequest"] == "200m"


@pytest.mark.parametrize("name", PIPELINES)
def test_placeholders_stand_alone(name: str) -> None:
    """KFP's driver resolves a constant only if it is the placeholder and nothing else."""
    constants = [
        value["runtimeValue"]["constant"]
        for task in tasks(name).values()
        for value in task.get("inputs", {}).get("parameters", {}).values()
        if "runtimeValue" in value
    ]
    marked = {value for value in constants if isinstance(value, str) and "{{" in value}
    assert marked == {"{{$.pipeline_job_uuid}}"}


@pytest.mark.parametrize("name", PIPELINES)
def test_only_small_artifacts_leave_a_task(name: str) -> None:
    pipeline, _ = documents(name)
    kinds = {
        item["artifactType"]["schemaTitle"]
        for component in pipeline["components"].values()
        for item in component.get("outputDefinitions", {}).get("artifacts", {}).values()
    }
    assert kinds <= {"system.Metrics", "system.HTML", "system.Markdown", "system.Model"}
    assert "system.Dataset" not in yaml.safe_dump(pipeline)


def test_components_are_short() -> None:
    paths = list((FOLDER.parent / "components").glob("*.py"))
    assert len(paths) == 9
    for path in paths:
        assert len(path.read_text(encoding="utf-8").split("\n")) <= 60, path


@pytest.mark.parametrize("name", PIPELINES)
def test_versions_are_named_by_content(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_pipeline(name)
    resource, version = yaml.safe_load_all(compiled.manifests)
    assert re.fullmatch(rf"{resource['metadata']['name']}-[0-9a-f]{{12}}", compiled.version)
    assert resource["metadata"]["name"] == compiled.name == f"fsb-{name.replace('_', '-')}"
    assert version["metadata"]["name"] == version["spec"]["displayName"] == compiled.version
    assert version["spec"]["pipelineName"] == compiled.name
    pipeline, platform = yaml.safe_load_all(compiled.text)
    assert (version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]) == (
        pipeline,
        platform,
    )


def test_the_example_in_the_form_is_a_whole_run_on_a_cluster() -> None:
    spec = resolve_spec(EXAMPLE)
    assert spec.stages == tuple(Stage)
    check_places(spec)


def test_retries_are_taken_out_for_a_while_only() -> None:
    pipeline = PIPELINES["finetune"]  # has tasks in conditions, too
    with without_retries(pipeline):
        assert "retry_policy" not in str(pipeline.pipeline_spec)
    assert "retry_policy" in str(pipeline.pipeline_spec)


def test_every_pipeline_takes_the_same_names_for_the_same_things() -> None:
    kinds: dict[str, set[object]] = {}
    for pipeline in PIPELINES.values():
        for name, parameter in inspect.signature(pipeline.pipeline_func).parameters.items():
            kinds.setdefault(name, set()).add(parameter.annotation)
    assert {name for name, found in kinds.items() if len(found) > 1} == set()


def test_the_engine_says_what_it_cannot_do(tmp_path: Any) -> None:
    spec = resolve_spec(yaml.safe_dump(tiny_spec(tmp_path)))
    with pytest.raises(ConfigError, match="runs all stages; this spec has only data, training"):
        run(spec, RunResult(), keeps_serving=False)
    with pytest.raises(ConfigError, match="--serve"):
        run(spec, RunResult(), keeps_serving=True)
