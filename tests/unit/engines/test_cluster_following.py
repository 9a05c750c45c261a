from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pyfsb.config import Stage
from pyfsb.engines import cluster_following, cluster_progress
from pyfsb.engines.cluster_following import attach, follow, patiently
from pyfsb.engines.cluster_progress import BarReporter, LineReporter, describe_progress
from pyfsb.engines.cluster_resources import ClusterOptions, build_gang, build_served_model
from pyfsb.errors import ClusterError, ConfigError, DataError, FsbError, NotReadyError
from tests.helpers.api_server import FakeApi, Json, stop_clock
from tests.unit.engines.test_cluster_resources import s3_spec

RUNS = "/apis/fengshenbang.io/v1alpha1/namespaces/team/trainingruns"
PODS = "/api/v1/namespaces/team/pods"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves only when somebody sleeps."""
    return stop_clock(monkeypatch, cluster_following, cluster_progress)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def training(**options: Any) -> Json:
    return build_gang(s3_spec(), Stage.TRAINING, ClusterOptions(**options))


def steps(*statuses: Json) -> Iterator[Json]:
    """Each status once, the last one for ever."""
    return itertools.chain(statuses, itertools.repeat(statuses[-1]))


def play(api: FakeApi, *statuses: Json) -> None:
    """Let an operator write these statuses, one before each look."""
    coming = steps(*statuses)
    api.on_look = lambda resource: resource.update(status=next(coming))


def ended(reason: str, message: str) -> Json:
    condition = {
        "type": "Succeeded", "status": "False", "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return {"phase": "Failed", "conditions": [condition]}


def test_a_resource_is_followed_to_its_end(api: FakeApi) -> None:
    client, told = api.client(), []
    progress = {"step": 3, "totalSteps": 9, "loss": "2.5", "tokensPerSecond": 1200, "eta": "2m"}
    play(
        api, {}, {"phase": "Starting"}, {"phase": "Running", "progress": progress},
        {"phase": "Suspended", "message": "spec.suspend is true"}, {"phase": "Succeeded"},
    )  # fmt: skip
    manifest = training()
    attach(client, manifest)
    follow(client, "TrainingRun", manifest["metadata"]["name"], notify=told.append)
    phases = ["Pending", "Starting", "Running", "Suspended", "Succeeded"]
    assert [one["phase"] for one in told] == phases
    assert describe_progress(told[2]) == "step 3/9, loss 2.5, 1,200 tokens/s, 2m left"
    assert told[3]["message"].startswith("spec.suspend is true; `fsb resume tiny-training-")


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (ended("PermanentError", "x-master-0 ended with exit code 3: no such file"), DataError,
         "TrainingRun team/n: x-master-0 ended with exit code 3: no such file"),
        (ended("PermanentError", "x-master-0 ended with exit code 2: bad key"), ConfigError, "bad"),
        (ended("RestartBudgetExceeded", "x ended with exit code 137"), NotReadyError, "137"),
        ({"phase": "Invalid", "observedGeneration": 1, "message": "unknown pool 'x'"}, ConfigError,
         "unknown pool 'x'"),
    ],
)  # fmt: skip
def test_a_bad_end_becomes_an_error_with_the_conditions_words(
    status: Json, kind: type[FsbError], text: str, api: FakeApi
) -> None:
    client = api.client()
    attach(client, training(name="n"))
    play(api, status)
    with pytest.raises(kind, match=text) as caught:
        follow(client, "TrainingRun", "n", notify=lambda told: None)
    assert type(caught.value) is kind


def test_a_refusal_of_an_earlier_generation_does_not_count(api: FakeApi) -> None:
    client = api.client()
    attach(client, training(name="n"))
    play(api, {"phase": "Invalid", "observedGeneration": 0}, {"phase": "Succeeded"})
    assert follow(client, "TrainingRun", "n", notify=lambda told: None).phase == "Succeeded"


def test_a_service_that_failed_before_its_update_is_waited_for(api: FakeApi) -> None:
    client = api.client()
    served = build_served_model(s3_spec(), ClusterOptions(), evaluation="e", checkpoint="s3://b/c")
    attach(client, served)
    failed = {"phase": "Failed", "message": "CrashLoopBackOff"}
    play(api, {**failed, "observedGeneration": 0}, {"phase": "Ready", "observedGeneration": 1})
    settings: Json = {"notify": lambda told: None, "until": lambda seen: seen.phase == "Ready"}
    assert follow(client, "ServedModel", "tiny", **settings).phase == "Ready"
    play(api, {**failed, "observedGeneration": 1})
    with pytest.raises(DataError, match="ServedModel team/tiny: CrashLoopBackOff"):
        follow(client, "ServedModel", "tiny", **settings)


def test_what_is_blocked_is_shown_and_waited_for_as_long_as_allowed(api: FakeApi) -> None:
    client, told = api.client(), []
    attach(client, training(name="n"))
    play(api, {"phase": "Blocked", "message": "0/2 nodes have nvidia.com/gpu"})
    with pytest.raises(NotReadyError, match=r"is Blocked for \d+ s: 0/2 nodes have"):
        follow(client, "TrainingRun", "n", notify=told.append, blocked_limit_seconds=30)
    assert told[0]["message"] == "0/2 nodes have nvidia.com/gpu"


def test_without_an_operator_it_is_said(api: FakeApi, hurried: list[float]) -> None:
    client, told = api.client(), []
    attach(client, training(name="n"))
    with pytest.raises(NotReadyError, match="no operator has looked at it yet; `fsb doctor"):
        follow(client, "TrainingRun", "n", notify=told.append, blocked_limit_seconds=60)
    assert "message" not in told[0]


def test_one_that_is_deleted_ends_the_following(api: FakeApi) -> None:
    client = api.client()
    attach(client, training(name="n"))
    api.on_look = lambda resource: api.objects.pop(f"{RUNS}/n")
    with pytest.raises(ClusterError, match="was deleted meanwhile"):
        follow(client, "TrainingRun", "n", notify=lambda told: None)


def test_an_outage_is_waited_out_and_then_told(api: FakeApi, hurried: list[float]) -> None:
    api.objects["/version"] = {"gitVersion": "v1"}
    client = api.client()
    api.failures = [OSError("connection refused")] * 3
    assert patiently(lambda: client.get("/version")) == {"gitVersion": "v1"}
    assert len(hurried) == 3
    api.failures = [OSError("connection refused")] * 500
    with pytest.raises(ClusterError, match=r"connection refused; tried for \d+ s. What runs"):
        patiently(lambda: client.get("/version"), limit_seconds=60)


def test_one_under_way_is_found_again_and_stays_suspended(api: FakeApi) -> None:
    client, manifest = api.client(), training(name="n")
    attach(client, manifest)
    client.merge(f"{RUNS}/n", {"spec": {"suspend": True}})
    api.objects[f"{RUNS}/n"]["status"] = {"phase": "Suspended"}
    attach(client, manifest)
    assert api.objects[f"{RUNS}/n"]["spec"]["suspend"] is True
    # Two managers: an apply takes away what its manager does not name any more.
    patches = [url.partition("?")[2] for method, url, _ in api.calls if method == "PATCH"]
    strict = "fieldManager=fsb&fieldValidation=Strict"
    assert patches == [strict, "fieldManager=fsb-set", strict]
    assert not [call for call in api.calls if call[0] == "DELETE"]


@pytest.mark.parametrize(
    ("phase", "nodes"), [("Running", 2), ("Suspended", 2), ("Blocked", 1), ("Pending", 1)]
)
def test_pods_that_run_keep_their_width_and_what_waits_takes_the_new_one(
    phase: str, nodes: int, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    client = api.client()
    attach(client, training(name="n", nodes=2, processes_per_node=4, pool="a100"))
    api.objects[f"{RUNS}/n"]["status"] = {"phase": phase}
    attach(client, training(name="n"))
    spec = api.objects[f"{RUNS}/n"]["spec"]
    assert (spec["nodes"], spec["pool"]) == (nodes, "a100" if nodes == 2 else "default")
    patched = [body for method, _, body in api.calls if method == "PATCH"][-1]
    assert patched is not None
    assert ("processesPerNode" in patched["spec"]) == (nodes == 2)  # else the apply takes it away
    assert (f"is {phase} with pool a100, not default; nodes 2, not 1" in caplog.text) == (
        nodes == 2
    )


def test_two_gangs_never_write_to_one_output(api: FakeApi) -> None:
    client = api.client()
    attach(client, training(name="first"))
    api.objects[f"{RUNS}/first"]["status"] = {"phase": "Running"}
    other = build_gang(s3_spec(training__max_steps=7), Stage.TRAINING, ClusterOptions(name="n"))
    with pytest.raises(NotReadyError, match="TrainingRun team/first is Running and writes to s3:"):
        attach(client, other)
    assert f"{RUNS}/n" not in api.objects
    api.objects[f"{RUNS}/first"]["status"] = {"phase": "Failed"}
    attach(client, other)
    assert f"{RUNS}/n" in api.objects


@pytest.mark.parametrize("phase", ["Failed", "Invalid", "Succeeded"])
def test_one_that_has_ended_is_started_again_once_its_pods_are_gone(
    phase: str, api: FakeApi, hurried: list[float]
) -> None:
    client, manifest = api.client(), training(name="n")
    attach(client, manifest)
    api.objects[f"{RUNS}/n"]["status"] = {"phase": phase}
    pod = {"metadata": {"name": "p", "labels": {"fengshenbang.io/run": "n"}}}
    api.put(f"{PODS}/p", pod)
    looks = itertools.count()
    monkeypatched = client.list_objects

    def list_objects(path: str, *, labels: str = "") -> list[Json]:
        if labels and next(looks) == 3:
            del api.objects[f"{PODS}/p"]
        return monkeypatched(path, labels=labels)

    client.list_objects = list_objects  # type: ignore[method-assign]
    attach(client, manifest)
    assert api.objects[f"{RUNS}/n"]["metadata"]["uid"] == "u2"
    assert len(hurried) >= 3
    api.objects[f"{RUNS}/n"]["status"] = {"phase": "Succeeded"}
    attach(client, manifest, is_complete=lambda: True)
    assert api.objects[f"{RUNS}/n"]["metadata"]["uid"] == "u2"


def test_another_run_under_the_same_name_is_refused(api: FakeApi) -> None:
    client = api.client()
    attach(client, training(name="n"))
    other = build_gang(s3_spec(training__max_steps=7), Stage.TRAINING, ClusterOptions(name="n"))
    with pytest.raises(ConfigError, match="under way with other settings; .*choose another name"):
        attach(client, other)


def test_lines_tell_changes_at_once_and_steps_now_and_then(
    caplog: pytest.LogCaptureFixture, hurried: list[float]
) -> None:
    caplog.set_level(logging.INFO, "pyfsb")
    show = LineReporter()
    told = {"kind": "TrainingRun", "namespace": "team", "name": "n", "phase": "Running"}
    for step in range(1, 5):
        show({**told, "step": step, "total_steps": 9})
        hurried.append(6.0)
    show({**told, "phase": "Restarting", "message": "a pod was lost"})
    assert [record.getMessage() for record in caplog.records] == [
        "TrainingRun team/n: Running", "TrainingRun n: step 1/9", "TrainingRun n: step 4/9",
        "TrainingRun team/n: Restarting – a pod was lost",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=Console(file=out, force_terminal=True, width=100)) as progress:
        show = BarReporter(progress)
        told = {"kind": "TrainingRun", "namespace": "team", "name": "n", "phase": "Running"}
        show({**told, "step": 3, "total_steps": 9, "loss": "2.5"})
        assert progress.tasks[0].completed == 3
        show({**told, "phase": "Succeeded"})
        assert progress.tasks[0].finished
    assert "TrainingRun team/n: Running" in out.getvalue()
