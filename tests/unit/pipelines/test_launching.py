"""What a component asks of the engines, with an engine that only notes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.dsl import TaskConfig

from pipelines import launching
from pipelines.launching import Launch, resource_name, run_stage
from pyfsb.config import RunSpec, Stage, resolve_spec
from pyfsb.engines import kubernetes
from pyfsb.engines.cluster_resources import ClusterOptions, build_gang
from pyfsb.engines.protocol import StageResult
from pyfsb.errors import ConfigError, DataError, UnknownNameError
from pyfsb.resources import kinds
from tests.helpers.specs import tiny_spec
from tests.unit.pipelines.test_stopping import pod


class Cluster:
    """Answers with what a test put at a path."""

    namespace = "team"

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def get(self, path: str) -> Any:
        return self.objects.get(path)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(launching, "connect", lambda: made)
    monkeypatch.delenv("FSB_POD_NAME", raising=False)
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> list[tuple[Stage, ClusterOptions]]:
    noted: list[tuple[Stage, ClusterOptions]] = []

    def note(spec: RunSpec, stage: Stage, options: ClusterOptions) -> StageResult:
        noted.append((stage, options))
        return StageResult(stage=stage, seconds=1, was_complete=False, places=(), records=())

    monkeypatch.setattr(kubernetes, "run_stage_on_cluster", note)
    return noted


def spec_of(name: str = "tiny", output: str = "s3://b/out") -> RunSpec:
    scored = {"evaluation": {"tasks": ["tnews"]}}
    return resolve_spec(yaml.safe_dump({**tiny_spec(output), **scored, "name": name}))


def in_a_task(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, node: str) -> None:
    monkeypatch.setenv("FSB_POD_NAME", "launcher")
    cluster.objects["/api/v1/namespaces/team/pods/launcher"] = pod(node)


def test_a_training_gets_what_the_pipeline_says(
    asked: list[Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_task(cluster, monkeypatch, "x.train(0)")
    config = TaskConfig(node_selector={"a": "b"}, resources={"limits": {"nvidia.com/gpu": 4}})
    launch = Launch(
        engine="kubernetes", run_id="0f-1", pool="a100", nodes=3, processes_per_node=2,
        task_config=config,
    )  # fmt: skip
    run_stage(spec_of(), Stage.TRAINING, launch)
    ((stage, options),) = asked
    assert (stage, options.namespace, options.pool, options.nodes) == (
        Stage.TRAINING, "team", "a100", 3,
    )  # fmt: skip
    assert (options.processes_per_node, options.resources) == (2, {"devices": 4})
    assert options.pod == {"nodeSelector": {"a": "b"}}
    assert options.shows_logs
    assert options.stops_with == {"workflow": "fsb-pretrain-x2", "uid": "u1"}
    assert options.name == resource_name(spec_of(), Stage.TRAINING, "0f-1")
    manifest = build_gang(spec_of(), stage, options)
    assert kinds.TrainingRunResource.model_validate(manifest).spec.nodes == 3


@pytest.mark.parametrize("stage", [Stage.DATA, Stage.SERVING])
def test_data_and_serving_are_no_gangs(asked: list[Any], stage: Stage) -> None:
    launch = Launch(engine="kubernetes", run_id="r", nodes=4, processes_per_node=8)
    run_stage(spec_of(), stage, launch)
    assert (asked[0][1].nodes, asked[0][1].processes_per_node) == (1, None)


def test_a_spec_that_does_not_serve_is_not_served(asked: list[Any]) -> None:
    quiet = spec_of()
    quiet = quiet.model_copy(
        update={"serving": quiet.serving.model_copy(update={"is_enabled": False})}
    )
    launch = Launch(engine="kubernetes", run_id="r")
    with pytest.raises(ConfigError, match=r"the spec leaves out serving \(it does data, "):
        run_stage(quiet, Stage.SERVING, launch)
    assert not asked


def test_a_service_outlives_its_pipeline_and_keeps_its_name(
    asked: list[Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_task(cluster, monkeypatch, "x.deploy(0)")
    run_stage(spec_of(), Stage.SERVING, Launch(engine="kubernetes", run_id="r"))
    options = asked[0][1]
    assert (options.stops_with, options.name) == (None, None)
    assert options.evaluation == resource_name(spec_of(), Stage.EVALUATION, "r")


def test_outside_of_kfp_the_engine_chooses_the_name(asked: list[Any]) -> None:
    run_stage(spec_of(), Stage.DATA, Launch(engine="kubernetes"))
    assert (asked[0][1].name, asked[0][1].stops_with) == (None, None)


def test_here_it_is_a_subprocess(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noted: list[Stage] = []
    monkeypatch.setattr(launching.local, "run_stage", lambda _spec, stage: noted.append(stage))
    run_stage(spec_of(output=str(tmp_path)), Stage.TRAINING, Launch(engine="local"))
    assert noted == [Stage.TRAINING]


def test_an_unknown_engine() -> None:
    with pytest.raises(UnknownNameError, match="unknown engine 'kubernets'; did you mean 'kube"):
        run_stage(spec_of(), Stage.DATA, Launch(engine="kubernets"))


def failed(spec: RunSpec, run_id: str) -> tuple[str, dict[str, Any]]:
    name = resource_name(spec, Stage.TRAINING, run_id)
    path = f"/apis/fengshenbang.io/v1alpha1/namespaces/team/trainingruns/{name}"
    condition = {
        "type": "Succeeded", "status": "False", "reason": "Failed",
        "message": "pod x ended with exit code 3: line 7: no label",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return path, {
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": "team", "generation": 1},
        "status": {"phase": "Failed", "conditions": [condition], "observedGeneration": 1},
    }


def test_a_repeated_try_tells_the_end_instead_of_starting_again(
    asked: list[Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, resource = failed(spec_of(), "r")
    cluster.objects[path] = resource
    in_a_task(cluster, monkeypatch, "x.train(1)")
    with pytest.raises(DataError, match="line 7: no label"):
        run_stage(spec_of(), Stage.TRAINING, Launch(engine="kubernetes", run_id="r"))
    assert not asked


def test_retry_in_the_ui_starts_it_again(
    asked: list[Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, resource = failed(spec_of(), "r")
    cluster.objects[path] = resource
    in_a_task(cluster, monkeypatch, "x.train(0)")
    run_stage(spec_of(), Stage.TRAINING, Launch(engine="kubernetes", run_id="r"))
    assert len(asked) == 1


def test_a_repeated_try_follows_what_goes_on(
    asked: list[Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, resource = failed(spec_of(), "r")
    cluster.objects[path] = {**resource, "status": {"phase": "Running"}}
    in_a_task(cluster, monkeypatch, "x.train(3)")
    run_stage(spec_of(), Stage.TRAINING, Launch(engine="kubernetes", run_id="r"))
    assert len(asked) == 1


def test_names_follow_from_run_stage_and_output_only() -> None:
    name = resource_name(spec_of(), Stage.TRAINING, "0f-1")
    assert name == resource_name(spec_of(), Stage.TRAINING, "0f-1")
    others = {
        resource_name(spec_of(), Stage.EVALUATION, "0f-1"),
        resource_name(spec_of(), Stage.TRAINING, "0f-2"),
        resource_name(spec_of(output="s3://b/other"), Stage.TRAINING, "0f-1"),
    }
    assert name not in others
    assert len(others) == 3


@pytest.mark.parametrize(
    "name", ["Erlangshen_Pretraining.of-a-very-long-name-indeed.v12", "7b", "a"]
)
def test_names_fit_pods_of_a_gang(name: str) -> None:
    """A PyTorchJob's name is a DNS-1035 label, and so are its pods' with their suffix."""
    found = resource_name(spec_of(name), Stage.EVALUATION, "r")
    assert found
    assert len(f"{found}-worker-511") <= 63
    assert found[0].isalpha()
    assert found.replace("-", "").isalnum()
    assert found == found.lower()


@pytest.mark.parametrize("run_id", ["", "{{$.pipeline_job_uuid}}"])
def test_without_a_run_there_is_no_name(run_id: str) -> None:
    assert resource_name(spec_of(), Stage.TRAINING, run_id) is None
