"""What meters tell of a step, to whom, and what stays after a restart or a rewind."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pyfsb.config import EnergySpec
from pyfsb.errors import ConfigError
from pyfsb.training.exporters import Mlflow
from pyfsb.training.meters import METER_FILES, Meters, StepOutcome, open_meters, read_metrics
from pyfsb.training.metrics import StepMetrics
from pyfsb.training.progress import Work
from pyfsb.training.usage import read_attempts
from pyfsb.training.window import Window

WORK = Work(num_steps=9, num_parameters=10, peak_flops=1e6, num_devices=2, device="cpu")


def outcome(step: int, **changes: Any) -> StepOutcome:
    values: dict[str, Any] = {
        "step": step, "loss": float(step), "gradient_norm": 1.0, "learning_rate": 0.1, "epoch": 0,
        "num_samples": 4 * step, "num_tokens": 100 * step, "num_targets": 15,
        "num_step_tokens": 100, "num_step_samples": 4, "num_flops": 2e5, "seconds": 0.5,
        "data_seconds": 0.05, "communication_seconds": 0.1, "checkpoint_seconds": 0.0,
    }  # fmt: skip
    return StepOutcome(**{**values, **changes})


def lines(folder: Path) -> list[StepMetrics]:
    return read_metrics(folder / "metrics.jsonl")


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, round(event.value, 5)) for event in events.Scalars(name)]


def test_a_step_reaches_lines_textfile_endpoint_and_tensorboard(tmp_path: Path) -> None:
    with open_meters(tmp_path, name="run", work=WORK, step=0, metrics_port=0) as meters:
        assert isinstance(meters, Meters)
        meters.record(outcome(1))
        meters.record(outcome(2, validation_loss=1.5, checkpoint_seconds=0.5))
        url = f"http://127.0.0.1:{meters.prometheus.port}/metrics"
        with urllib.request.urlopen(url) as response:
            text = response.read().decode()
        meters.record(outcome(3))
    for series, value in {
        "loss": "2.0", "step": "2.0", "num_steps": "9.0", "tokens_per_second": "200.0",
        "samples_per_second": "8.0", "mfu": "0.4", "data_share": "0.06666666666666667",
        "communication_share": "0.13333333333333333", "checkpoint_share": "0.3333333333333333",
        "step_seconds_p50": "0.5", "validation_loss": "1.5", "num_skipped_steps": "0.0",
    }.items():  # fmt: skip
        assert f'fsb_training_{series}{{run="run"}} {value}\n' in text
    assert "fsb_training_device_bytes" not in text  # a CPU has none
    assert 'fsb_training_validation_loss{run="run"} 1.5' in (tmp_path / "metrics.prom").read_text()
    first, second, _ = lines(tmp_path)
    assert first["tokens_per_second"] == 200.0
    assert first["mfu"] == pytest.approx(2e5 / 0.5 / 1e6)
    assert first["memory_bytes"] > 10 * 2**20
    assert (first["validation_loss"], second["validation_loss"]) == (None, 1.5)
    assert scalars(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert scalars(tmp_path, "mfu")[0] == (1, 0.4)
    assert scalars(tmp_path, "validation_loss") == [(2, 1.5)]


def test_a_loss_that_is_no_number_leaves_the_file_strict_json(tmp_path: Path) -> None:
    with open_meters(tmp_path, name="run", work=WORK, step=0) as meters:
        assert meters
        meters.record(outcome(1))
        meters.record(outcome(2, loss=math.nan, gradient_norm=math.inf, is_skipped=True))
    texts = (tmp_path / "metrics.jsonl").read_text().splitlines()
    value = json.loads(texts[1], parse_constant=lambda name: pytest.fail(name))
    assert (value["loss"], value["gradient_norm"], value["is_skipped"]) == (None, None, True)
    assert math.isnan(lines(tmp_path)[1]["loss"])
    assert 'num_skipped_steps{run="run"} 1.0' in (tmp_path / "metrics.prom").read_text()


def test_a_continued_training_has_each_step_once_and_every_attempt(tmp_path: Path) -> None:
    with open_meters(tmp_path, name="run", work=WORK, step=0) as meters:
        assert meters
        for step in range(1, 6):
            meters.record(outcome(step))
    with open_meters(tmp_path, name="run", work=WORK, step=3) as meters:
        assert meters
        meters.record(outcome(4, loss=40.0))
    assert [metrics["loss"] for metrics in lines(tmp_path)] == [1.0, 2.0, 3.0, 40.0]
    assert scalars(tmp_path, "loss")[-2:] == [(3, 3.0), (4, 40.0)]
    attempts = read_attempts(tmp_path)
    assert attempts
    assert [(a.first_step, a.last_step, a.has_ended) for a in attempts.attempts] == [
        (0, 5, True), (3, 4, True),
    ]  # fmt: skip
    assert all((tmp_path / name).is_file() for name in METER_FILES)


def test_a_killed_attempt_is_known_from_its_last_sign(tmp_path: Path) -> None:
    meters = Meters(tmp_path, name="run", work=WORK, step=0)
    meters.record(outcome(1))  # never closed
    attempts = read_attempts(tmp_path)
    assert attempts
    assert [(a.last_step, a.has_ended) for a in attempts.attempts] == [(1, False)]
    meters.close()


def test_attempts_that_cannot_be_read_end_nothing(tmp_path: Path) -> None:
    (tmp_path / "attempts.json").write_text('{"name": ')
    with open_meters(tmp_path, name="run", work=WORK, step=0) as meters:
        assert meters
    attempts = read_attempts(tmp_path)
    assert attempts
    assert len(attempts.attempts) == 1


def test_a_rewind_takes_the_steps_back(tmp_path: Path) -> None:
    with open_meters(tmp_path, name="run", work=WORK, step=0) as meters:
        assert meters
        for step in (1, 2, 3, 4):
            meters.record(outcome(step))
        meters.rewind(2)
        meters.record(outcome(3, loss=30.0))
        assert meters.figures()["step"] == 3.0
    assert [metrics["loss"] for metrics in lines(tmp_path)] == [1.0, 2.0, 30.0]
    assert scalars(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_tensorboard_gets_the_first_hundred_steps_and_the_last(tmp_path: Path) -> None:
    work = Work(num_steps=500)
    with open_meters(tmp_path, name="run", work=work, step=0) as meters:
        assert meters
        for step in range(1, 201):
            meters.record(outcome(step))
    steps = [step for step, _ in scalars(tmp_path, "loss")]
    assert steps[:100] == list(range(1, 101))
    assert steps[-1] == 200
    assert len(steps) < 110
    assert len(lines(tmp_path)) == 200


def test_energy_is_what_was_stated_times_device_time(tmp_path: Path) -> None:
    energy = EnergySpec(watts_per_device=700.0, kg_co2e_per_kwh=0.5, price_per_device_hour=2.0)
    with open_meters(tmp_path, name="run", work=WORK, step=0, energy=energy) as meters:
        assert meters
        meters.record(outcome(1))
        found = meters.figures()
    seconds = found["device_seconds"]
    assert seconds is not None
    assert found["kwh"] == pytest.approx(700 * seconds / 3.6e6, abs=1e-6)
    assert found["kg_co2e"] == pytest.approx(0.5 * (found["kwh"] or 0))
    assert found["cost"] == pytest.approx(2 * seconds / 3600, abs=1e-6)


def test_a_scrape_beside_a_training_sees_whole_figures(tmp_path: Path) -> None:
    with open_meters(tmp_path, name="run", work=Work(num_steps=999), step=0) as meters:
        assert meters
        failures: list[BaseException] = []
        is_over = threading.Event()

        def scrape() -> None:
            while not is_over.is_set():
                try:
                    meters.figures()
                except BaseException as exc:
                    failures.append(exc)

        thread = threading.Thread(target=scrape)
        thread.start()
        for step in range(1, 400):
            meters.record(outcome(step))
        is_over.set()
        thread.join()
    assert not failures


def test_a_taken_metrics_port_is_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"training.metrics_port = {port}"):
            Meters(tmp_path, name="r", work=WORK, step=0, metrics_port=port)


def test_other_ranks_have_no_meters() -> None:
    with open_meters(None, name="x", work=WORK, step=0) as meters:
        assert meters is None


def test_the_window_gives_quantiles_and_shares(tmp_path: Path) -> None:
    with open_meters(tmp_path, name="run", work=Work(num_steps=300), step=0) as meters:
        assert meters
        for step in range(1, 101):
            meters.record(outcome(step, seconds=float(step), data_seconds=0.0))
    window = Window(lines(tmp_path))
    assert window.seconds_at(0.5) == 50.0
    assert window.seconds_at(0.99) == 99.0
    assert window.data_share == 0.0
    assert Window().seconds_at(0.5) is None
    assert Window().checkpoint_share is None


class FakeClient:
    """Remembers what it is asked; refuses where it is told to."""

    refuses = False
    runs: list[str] = []
    points: list[Any] = []
    ended: list[str] = []

    def __init__(self, *, tracking_uri: str) -> None:
        if tracking_uri == "wrong":
            raise RuntimeError("no such scheme")

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return "7"

    def create_run(self, experiment: str, *, run_name: str) -> Any:
        self.runs.append(run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{len(self.runs)}"))

    def log_batch(self, run_id: str, *, metrics: list[Any]) -> None:
        if self.refuses:
            raise ConnectionError("away")
        self.points += [(run_id, point) for point in metrics]

    def set_terminated(self, run_id: str) -> None:
        self.ended.append(run_id)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    """A module of that name, as far as it is used."""
    client = type("Client", (FakeClient,), {"runs": [], "points": [], "ended": []})
    entities = ModuleType("mlflow.entities")
    entities.Metric = lambda key, value, stamp, step: (key, value, step)  # type: ignore[attr-defined]
    module = ModuleType("mlflow")
    module.MlflowClient = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return client


def test_mlflow_gets_the_steps_and_a_continued_run_goes_on(
    tmp_path: Path, mlflow: type[FakeClient]
) -> None:
    for step in (1, 2):
        with open_meters(
            tmp_path, name="run", work=WORK, step=step - 1, mlflow_uri="file:x"
        ) as meters:
            assert meters
            meters.record(outcome(step))
    assert mlflow.runs == ["run"]
    losses = [(run, value, step) for run, (key, value, step) in mlflow.points if key == "loss"]
    assert losses == [("id-1", 1.0, 1), ("id-1", 2.0, 2)]
    assert mlflow.ended == ["id-1", "id-1"]


def test_mlflow_that_is_away_fails_no_training_and_is_told_once(
    mlflow: type[FakeClient], caplog: pytest.LogCaptureFixture
) -> None:
    mlflow.refuses = True
    client = Mlflow("http://x", name="run", run_id=None)
    for step in range(3):
        client.add({"loss": 1.0, "mfu": None, "gradient_norm": math.nan}, step)
    client.close()
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow does not take the metrics: away"
    ]


def test_mlflow_that_is_wrong_or_missing_is_told_at_the_start(
    mlflow: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="training.mlflow_uri = 'wrong' cannot be used"):
        Mlflow("wrong", name="run", run_id=None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="needs mlflow: pip install mlflow-skinny"):
        Mlflow("file:x", name="run", run_id=None)


def test_meters_and_usage_import_no_torch() -> None:
    code = (
        "import sys, pyfsb.training.meters, pyfsb.training.usage, pyfsb.training.timing, "
        "pyfsb.training.watchdog; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
