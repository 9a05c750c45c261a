from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import yaml

from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage, resolve_spec, stage_hash
from pyfsb.engines import cluster_following, cluster_serving, find_engine, kubernetes
from pyfsb.engines.cluster_resources import ClusterOptions, resource_name
from pyfsb.engines.completion import SPEC_NAME
from pyfsb.engines.protocol import RunResult
from pyfsb.errors import ConfigError, DataError, GateError, StorageError
from pyfsb.records import CheckpointRecord, FileEntry, GateResult, ServingRecord
from tests.helpers.api_server import FakeApi, Json, refuse, stop_clock
from tests.unit.engines.test_cluster_resources import make_spec
from tests.unit.engines.test_completion import eval_report
from tests.unit.evaluation.test_evaluation import scored
from tests.unit.test_records import dataset


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves only when somebody sleeps."""
    stop_clock(monkeypatch, cluster_following, cluster_serving, kubernetes)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(kubernetes, "connect", lambda namespace=None: fake.client())
    return fake


def test_the_engine_is_found_by_its_name_and_imports_no_client() -> None:
    assert find_engine("kubernetes") is kubernetes.run


class Operator:
    """Carries out what is applied: writes the records that pods would write."""

    def __init__(self, spec: RunSpec, *, has_passed: bool = True) -> None:
        self.spec, self.has_passed = spec, has_passed
        self.looks: dict[str, int] = {}

    def __call__(self, resource: Json) -> None:
        name = resource["metadata"]["name"]
        self.looks[name] = self.looks.get(name, 0) + 1
        status: Json = {"observedGeneration": resource["metadata"]["generation"]}
        if resource["kind"] == "ServedModel":
            url = f"http://{name}-predictor.team.svc.cluster.local"
            resource["status"] = {**status, "phase": "Ready", "url": url}
        elif self.looks[name] < 3:
            resource["status"] = {**status, "phase": "Running"}
        else:
            resource["status"] = {**status, "phase": "Succeeded", **self._work(resource)}

    def _work(self, resource: Json) -> Json:
        run = resolve_spec(yaml.safe_dump(resource["spec"]["run"]))
        return getattr(self, f"_{resource['kind'].lower()}")(run)

    def _datapreparation(self, run: RunSpec) -> Json:
        place = storage.join(run.output_of(Stage.DATA), "corpus")
        files = storage.find_files(run.data.root, run.data.corpus[0])
        inputs = tuple(FileEntry(path=f.path, num_bytes=f.num_bytes, xxh3="") for f in files)
        records.write_record(dataset(inputs=inputs, config_hash=stage_hash(run, Stage.DATA)), place)
        return {}

    def _trainingrun(self, run: RunSpec) -> Json:
        checkpoint = self._checkpoint(stage_hash(run, Stage.TRAINING))
        records.write_record(checkpoint, run.output_of(Stage.TRAINING))
        return {}

    def _evaluation(self, run: RunSpec) -> Json:
        place = run.output_of(Stage.EVALUATION)
        records.write_record(self._checkpoint("c"), storage.join(place, "c"))
        score = scored(["a", "b"], [["a", "b"]])
        gate = GateResult(
            task=score.task, runner=score.runner, has_passed=self.has_passed, reason="r", p_value=0
        )
        report = eval_report(
            config_hash=stage_hash(run, Stage.EVALUATION), scores=(score,), gate=gate,
            example={"text": "问题", "text_pair": None},
        )  # fmt: skip
        records.write_record(report, place)
        pages = storage.join(run.output_of(Stage.LEADERBOARD), "leaderboard.html")
        storage.write_text(pages, "<html>")
        return {"digest": report.digest, "gatePassed": self.has_passed}

    @staticmethod
    def _checkpoint(config_hash: str) -> CheckpointRecord:
        return CheckpointRecord(
            run="r", created_at="x", seconds=1.0, config_hash=config_hash, seeds=(1,), model="m",
            architecture="a", family="classify", objective="finetune", num_parameters=1, step=1,
            num_samples=1, num_tokens=1, loss=1.0, max_tokens=8, vocabulary_digest="v",
        )  # fmt: skip


def whole(s3: str, **changes: Any) -> RunSpec:
    storage.write_text(f"{s3}/texts/a.txt", "文" * 40)
    settings = {
        "data__root": f"{s3}/texts",
        "data__corpus": ["*.txt"],
        "evaluation__tasks": ["tnews"],
    }
    return make_spec(f"{s3}/run", **{**settings, **changes})


def answers(path: str, body: Json) -> Json:
    assert body["inputs"][0]["data"] == ["问题"]
    return {"outputs": [{"name": "result", "data": [json.dumps({"label": "a", "score": 0.9})]}]}


def test_a_whole_run_ends_as_a_local_one_does(s3: str, api: FakeApi) -> None:
    spec = whole(s3)
    api.on_look, api.services = Operator(spec), answers
    result = RunResult()
    kubernetes.run(spec, result, keeps_serving=False)
    assert [stage.stage for stage in result.stages] == list(spec.stages)
    assert not any(stage.was_complete for stage in result.stages)
    served = result.stages[-1].records[0]
    assert isinstance(served, ServingRecord)
    assert served.answer == {"label": "a", "score": 0.9}
    assert served.endpoint == "http://tiny-predictor.team.svc.cluster.local/v2/models/tiny/infer"
    assert served.model_name == served.task  # as on one machine: the digest must not differ
    asked = [url for method, url, _ in api.calls if method == "POST"]
    assert asked == [
        "/api/v1/namespaces/team/services/http:tiny-predictor:80/proxy/v2/models/tiny/infer"
    ]
    model = api.objects["/apis/fengshenbang.io/v1alpha1/namespaces/team/servedmodels/tiny"]
    assert model["spec"]["evaluation"] == resource_name(spec, Stage.EVALUATION)
    assert (model["spec"]["gate"], "model" in model["spec"]) == ("required", False)
    assert model["spec"]["serving"]["requestTimeoutSeconds"] == 30
    assert yaml.safe_load(storage.read_text(f"{spec.output}/{SPEC_NAME}")) == spec.to_json()
    api.calls.clear()
    again = RunResult()
    kubernetes.run(spec, again, keeps_serving=False)
    assert all(stage.was_complete for stage in again.stages)
    assert not [call for call in api.calls if call[0] != "GET"]
    assert not storage.exists(f"{spec.output}/.lock")


def test_a_run_that_was_evaluated_elsewhere_is_served_from_its_report(
    s3: str, api: FakeApi
) -> None:
    spec = whole(s3)
    api.on_look, api.services = Operator(spec), answers
    options = ClusterOptions()
    kubernetes.run_stage_on_cluster(spec, Stage.EVALUATION, options)
    api.objects = {key: value for key, value in api.objects.items() if "evaluations/" not in key}
    done = kubernetes.run_stage_on_cluster(spec, Stage.SERVING, options)
    assert isinstance(done.records[0], ServingRecord)
    model = api.objects["/apis/fengshenbang.io/v1alpha1/namespaces/team/servedmodels/tiny"]
    assert (model["spec"]["gate"], "evaluation" in model["spec"]) == ("off", False)
    assert model["spec"]["model"] == f"{spec.output}/evaluation/c"


def test_whose_service_is_updated_is_said(
    s3: str, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    spec = whole(s3)
    api.on_look, api.services = Operator(spec), answers
    kubernetes.run(spec, RunResult(), keeps_serving=False)
    assert "this run updates it" not in caplog.text
    other = whole(f"{s3}/other", training__max_steps=7)
    api.on_look = Operator(other)
    kubernetes.run(other, RunResult(), keeps_serving=False)
    before = resource_name(spec, Stage.EVALUATION)
    assert f"ServedModel team/tiny serves {before} until now; this run updates it" in caplog.text


def test_ctrl_c_while_a_service_starts_names_what_ends_it(
    s3: str, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    spec = whole(s3)
    operator = Operator(spec)

    def look(resource: Json) -> None:
        if resource["kind"] == "ServedModel":
            raise KeyboardInterrupt
        operator(resource)

    api.on_look = look
    with pytest.raises(KeyboardInterrupt):
        kubernetes.run(spec, RunResult(), keeps_serving=False)
    assert "`fsb stop tiny --delete -n team` ends it" in caplog.text


def test_a_gate_that_has_not_passed_serves_nothing(s3: str, api: FakeApi) -> None:
    spec = whole(s3)
    api.on_look = Operator(spec, has_passed=False)
    result = RunResult()
    with pytest.raises(GateError, match="nothing is served"):
        kubernetes.run(spec, result, keeps_serving=False)
    assert [stage.stage for stage in result.stages] == list(spec.stages[:-1])
    assert not [key for key in api.objects if "servedmodels/" in key]


def test_a_service_that_refuses_at_first_is_asked_again(s3: str, api: FakeApi) -> None:
    spec = whole(s3)
    tries = itertools.count()

    def busy_at_first(path: str, body: Json) -> Json:
        return answers(path, body) if next(tries) else refuse(503, "no endpoints")  # type: ignore[func-returns-value]

    api.on_look, api.services = Operator(spec), busy_at_first
    kubernetes.run_stage_on_cluster(spec, Stage.EVALUATION, ClusterOptions())
    kubernetes.run_stage_on_cluster(spec, Stage.SERVING, ClusterOptions())
    assert next(tries) == 2
    api.services = lambda path, body: refuse(400, "unknown tensor")
    with pytest.raises(DataError, match="answered 400: unknown tensor"):
        kubernetes.run(spec, RunResult(), keeps_serving=True)


def test_ctrl_c_leaves_the_work_and_says_how_to_go_on(
    s3: str, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    spec = whole(s3)

    def interrupt(resource: Json) -> None:
        raise KeyboardInterrupt

    api.on_look = interrupt
    with pytest.raises(KeyboardInterrupt):
        kubernetes.run(spec, RunResult(), keeps_serving=False)
    name = resource_name(spec, Stage.DATA)
    assert f"DataPreparation team/{name} goes on in the cluster" in caplog.text
    assert f"`fsb stop {name} -n team` ends it" in caplog.text
    assert not storage.exists(f"{spec.output}/.lock")
    api.on_look = Operator(spec)
    done = kubernetes.run_stage_on_cluster(spec, Stage.DATA, ClusterOptions())
    assert not done.was_complete


@pytest.mark.parametrize("status", [403, 500])
def test_a_log_that_cannot_be_had_ends_nothing(status: int, s3: str, api: FakeApi) -> None:
    spec = whole(s3)
    api.on_look = Operator(spec)
    read = api._read

    def refuse_pods(path: str, query: dict[str, str]) -> Any:
        return refuse(status, "no") if path.endswith("/pods") else read(path, query)  # type: ignore[func-returns-value]

    api._read = refuse_pods  # type: ignore[method-assign]
    options = ClusterOptions(shows_logs=True)
    done = kubernetes.run_stage_on_cluster(spec, Stage.DATA, options)
    assert not done.was_complete


def test_a_store_that_pods_do_not_use_is_noticed(s3: str, api: FakeApi) -> None:
    spec = whole(s3)
    api.on_look = lambda resource: resource.update(status={"phase": "Succeeded"})
    with pytest.raises(DataError, match="holds no record: pods and this machine use different"):
        kubernetes.run(spec, RunResult(), keeps_serving=False)


def test_an_unreachable_store_and_a_bare_cluster_are_told_first(
    s3: str, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = whole(s3)

    def fail(uri: str) -> None:
        raise StorageError("cannot read s3://x")

    monkeypatch.setattr(kubernetes, "read_spec", fail)
    with pytest.raises(StorageError, match="records are read from here, too: set AWS_ENDPOINT"):
        kubernetes.run(spec, RunResult(), keeps_serving=False)
    del api.objects["/apis/fengshenbang.io/v1alpha1"]
    with pytest.raises(ConfigError, match="the chart is not installed; `fsb doctor cluster`"):
        kubernetes.run(spec, RunResult(), keeps_serving=False)
