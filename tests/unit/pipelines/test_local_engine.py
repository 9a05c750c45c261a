"""The engine `kfp-local` around real runs of KFP's local runner, of pipelines with one task.

KFP reads types at run time, so annotations are not postponed here.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from pipelines import local_engine
from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage, resolve_spec
from pyfsb.engines.completion import record_places
from pyfsb.engines.protocol import RunResult, StageResult
from pyfsb.errors import ConfigError, FsbError, NotReadyError
from pyfsb.storage.locks import hold_lock
from tests.conftest import ROOT
from tests.helpers.specs import tiny_spec
from tests.unit.test_records import dataset

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:kfp.*")


@dsl.component(base_image="python", install_kfp_package=False)
def act(spec: str) -> str:
    """Do what the run's name says, the way a component does it."""
    import os
    import signal
    import time
    from pathlib import Path

    from pyfsb.config import Stage, resolve_spec
    from pyfsb.engines.local import StageFailedError
    from pyfsb.errors import DataError, GateError, UnknownNameError
    from pyfsb.processes import report_error
    from pyfsb.storage.locks import hold_lock

    resolved = resolve_spec(spec)
    output = Path(resolved.output)
    output.mkdir(parents=True, exist_ok=True)

    def save(*_arguments: object) -> None:
        (output / "saved").touch()
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, save)
    (output / "started").touch()
    if resolved.name == "long":
        time.sleep(30)
    if resolved.name == "rows":
        report_error(DataError("line 3: no label"))
        raise StageFailedError(Stage.DATA, 3)
    if resolved.name == "killed":
        raise StageFailedError(Stage.TRAINING, 137)
    if resolved.name == "gate":
        raise GateError("gate for tnews: not above the majority")
    if resolved.name == "model":
        raise UnknownNameError("model", "Erlangshan", ["Erlangshen"])
    if resolved.name == "bug":
        raise ZeroDivisionError("division by zero")
    if resolved.name == "second":
        del os.environ["FSB_LOCK_HOLDER"]
        with hold_lock(resolved.output):
            pass
    return ""


@dsl.pipeline(name="one-task")
def one_task(spec: str, engine: str = "kubernetes") -> str:
    task = act(spec=spec).set_retry(num_retries=3, backoff_duration="60s")
    return task.output  # type: ignore[no-any-return]


@pytest.fixture
def make_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunSpec]:
    """Return specs of all five stages, for runs of the pipeline above."""
    monkeypatch.setattr(local_engine, "end_to_end", one_task)
    monkeypatch.chdir(ROOT)  # the tasks import pyfsb from there

    def make(**changes: Any) -> RunSpec:
        stages = {"evaluation": {"tasks": ["eprstmt"]}, "serving__port": 0}
        return resolve_spec(yaml.safe_dump(tiny_spec(tmp_path / "out", **{**stages, **changes})))

    return make


def write_records(spec: RunSpec, *stages: Stage) -> None:
    for stage in stages:
        for place in record_places(spec, stage):
            records.write_record(dataset(), place)
    if Stage.LEADERBOARD in stages:
        page = storage.join(spec.output_of(Stage.LEADERBOARD), "leaderboard.html")
        storage.write_text(page, "")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("rows", 3, "failed: DataError: line 3: no label$"),
        ("killed", 137, "failed: stage training ended with exit code 137"),
        ("gate", 3, "failed: GateError: gate for tnews: not above the majority$"),
        ("model", 2, "failed: UnknownNameError: unknown model 'Erlangshan'; did you mean"),
        ("second", 75, "failed: NotReadyError: another run holds .*out .process"),
        ("bug", 1, "Inner task failed"),
    ],
)
def test_a_failed_tasks_error_and_exit_code_become_the_runs(
    name: str, code: int, text: str, make_spec: Callable[..., RunSpec]
) -> None:
    with pytest.raises(FsbError, match=text) as caught:
        local_engine.run(make_spec(name=name), RunResult(), keeps_serving=False)
    assert caught.value.exit_code == code


def test_stages_before_the_failed_one_are_in_the_result(make_spec: Callable[..., RunSpec]) -> None:
    spec, result = make_spec(name="gate"), RunResult()
    write_records(spec, Stage.EVALUATION, Stage.LEADERBOARD, Stage.DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_engine, "find_complete", lambda *_arguments: None)
        with pytest.raises(FsbError, match="gate for tnews"):
            local_engine.run(spec, result, keeps_serving=False)
    assert [stage.stage for stage in result.stages] == [Stage.DATA]


def test_complete_stages_are_kept_and_said_to_be(
    make_spec: Callable[..., RunSpec],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec, result = make_spec(), RunResult()
    write_records(spec, *spec.stages)

    def find(spec: RunSpec, stage: Stage, _before: object) -> StageResult | None:
        places = tuple(record_places(spec, stage))
        if not places or stage is Stage.SERVING:
            return None
        return StageResult(
            stage=stage, seconds=7.0, was_complete=True, places=places, records=(dataset(),)
        )

    monkeypatch.setattr(local_engine, "find_complete", find)
    with caplog.at_level(logging.INFO, "pipelines"):
        local_engine.run(spec, result, keeps_serving=False)
    assert [(stage.stage, stage.was_complete) for stage in result.stages] == [
        (Stage.DATA, True), (Stage.TRAINING, True), (Stage.EVALUATION, True),
        (Stage.LEADERBOARD, False), (Stage.SERVING, False),
    ]  # fmt: skip
    assert [stage.seconds for stage in result.stages] == [7.0, 7.0, 7.0, 0, 1.0]
    kept = [record.getMessage() for record in caplog.records if "complete since" in record.msg]
    assert [line.partition(" ")[0] for line in kept] == ["[data]", "[training]", "[evaluation]"]


def test_other_settings_are_refused_before_any_task(make_spec: Callable[..., RunSpec]) -> None:
    spec = make_spec()
    write_records(spec, Stage.TRAINING)
    with pytest.raises(ConfigError, match="was made with other settings"):
        local_engine.run(spec, RunResult(), keeps_serving=False)
    assert not Path(spec.output, "started").exists()


def test_a_taken_port_is_told_before_any_task(
    make_spec: Callable[..., RunSpec], free_port: int
) -> None:
    spec = make_spec(serving__port=free_port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        with pytest.raises(ConfigError, match=f"serving.port = {free_port}: cannot listen on"):
            local_engine.run(spec, RunResult(), keeps_serving=False)
    assert not Path(spec.output, "started").exists()


def test_a_held_output_is_refused_before_any_task(make_spec: Callable[..., RunSpec]) -> None:
    spec = make_spec()
    with hold_lock(spec.output), pytest.raises(NotReadyError, match="another run holds"):
        local_engine.run(spec, RunResult(), keeps_serving=False)
    assert not Path(spec.output, "started").exists()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("numbers", "end"),
    [((signal.SIGTERM,), SystemExit), ((signal.SIGINT, signal.SIGINT), KeyboardInterrupt)],
    ids=["SIGTERM", "two Ctrl-C"],
)
def test_a_stopped_run_waits_for_its_task_to_save(
    numbers: tuple[signal.Signals, ...],
    end: type[BaseException],
    make_spec: Callable[..., RunSpec],
) -> None:
    spec = make_spec(name="long")

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not Path(spec.output, "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(end) as caught:
        local_engine.run(spec, RunResult(), keeps_serving=False)
    thread.join()
    assert Path(spec.output, "saved").exists()
    assert getattr(caught.value, "code", None) == (143 if end is SystemExit else None)


def test_the_lock_is_lent_for_the_length_of_a_run(make_spec: Callable[..., RunSpec]) -> None:
    local_engine.run(make_spec(), RunResult(), keeps_serving=False)
    assert "FSB_LOCK_HOLDER" not in os.environ
    with hold_lock(make_spec().output):
        pass
