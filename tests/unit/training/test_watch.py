"""Following a training by its files: what is added, cut, stopped and complete."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyfsb.errors import ConfigError
from pyfsb.training.metrics import METRICS_NAME, cut_after, to_line
from pyfsb.training.usage import Attempt, Attempts, write_attempts
from pyfsb.training.watch import Follower, find_training
from tests.helpers.specs import tiny_spec, write_spec


def line(step: int, **changes: Any) -> str:
    values: Any = {
        "step": step, "loss": float(step), "gradient_norm": 2.0, "learning_rate": 0.1,
        "seconds": 2.0, "tokens_per_second": 100.0, "samples_per_second": 8.0, "data_seconds": 0.5,
        "communication_seconds": 0.25, "checkpoint_seconds": 0.0, "mfu": 0.5, "memory_bytes": 2**30,
        "device_bytes": None, "is_skipped": False, "validation_loss": None, "at": 1000.0 + 2 * step,
        **changes,
    }  # fmt: skip
    return to_line(values)


def make(folder: Path, *lines: str, has_ended: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS_NAME).write_text("".join(lines))
    attempt = Attempt(
        started_at=1000.0, seen_at=1010.0, first_step=0, last_step=5, num_devices=2,
        has_ended=has_ended,
    )  # fmt: skip
    write_attempts(Attempts(name="demo", num_steps=10, attempts=(attempt,)), folder)


def follower(folder: Path, *, now: float = 1020.0) -> Follower:
    return Follower(str(folder), clock=lambda: now)


def test_a_view_says_where_a_training_stands(tmp_path: Path) -> None:
    lines = [line(1, validation_loss=3.0), line(2), line(3, loss=math.nan, is_skipped=True)]
    make(tmp_path, *lines, line(4, seconds=8.0))
    (tmp_path / "state/step-00000002").mkdir(parents=True)
    (tmp_path / "state/step-00000002/state.json").write_text("{}")
    (tmp_path / "state/step-00000003").mkdir()  # not complete
    view = follower(tmp_path).poll()
    assert (view.name, view.step, view.num_steps, view.loss) == ("demo", 4, 10, 4.0)
    assert view.validation_loss == 3.0
    assert (view.step_seconds_p50, view.step_seconds_p99) == (2.0, 8.0)
    assert view.eta_seconds == 6 * 2.0
    assert view.data_share == pytest.approx(2.0 / 14)
    assert view.tokens_per_second == pytest.approx(100.0)
    assert view.num_skipped_steps == 1
    assert view.goodput == pytest.approx(12 / 20)
    assert view.silent_seconds == 1020 - 1008
    assert view.checkpoint_step == 2
    assert not view.is_over


def test_only_whole_new_lines_are_read(tmp_path: Path) -> None:
    make(tmp_path, line(1))
    watched = follower(tmp_path)
    assert watched.poll().step == 1
    half = line(2)
    with (tmp_path / METRICS_NAME).open("a") as file:
        file.write(half[:20])
        file.flush()
        assert watched.poll().step == 1
        file.write(half[20:])
        file.flush()
        assert watched.poll().step == 2
    assert list(watched.losses) == [1.0, 2.0]


def test_steps_that_were_taken_back_are_forgotten(tmp_path: Path) -> None:
    make(tmp_path, *(line(step) for step in range(1, 6)))
    watched = follower(tmp_path)
    assert watched.poll().step == 5
    cut_after(tmp_path / METRICS_NAME, 2)
    assert watched.poll().step == 2
    with (tmp_path / METRICS_NAME).open("a") as file:
        file.write(line(3, loss=30.0))
    assert watched.poll().loss == 30.0
    assert list(watched.losses) == [1.0, 2.0, 30.0]


def test_a_training_that_ended_is_not_silent(tmp_path: Path) -> None:
    make(tmp_path, line(1), has_ended=True)
    view = follower(tmp_path, now=9999.0).poll()
    assert (view.is_over, view.is_complete, view.silent_seconds) == (True, False, None)
    assert view.goodput == pytest.approx(0.2)
    (tmp_path / "record.json").write_text("{}")
    assert follower(tmp_path).poll().is_complete


def test_before_the_first_step_there_is_nothing_to_tell(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / METRICS_NAME).unlink()
    view = follower(tmp_path).poll()
    assert (view.step, view.loss, view.eta_seconds, view.data_share) == (0, None, None, None)


def test_lines_of_earlier_versions_are_read(tmp_path: Path) -> None:
    text = (
        '{"step": 1, "loss": 2.0, "gradient_norm": 1.0, "seconds": 1.0, "tokens_per_second": 9.0}\n'
    )
    (tmp_path / METRICS_NAME).write_text(text)
    view = follower(tmp_path).poll()
    assert (view.step, view.num_steps, view.mfu, view.goodput) == (1, None, None, None)


def test_a_place_is_a_spec_an_output_or_a_folder(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, tiny_spec(tmp_path / "run"))
    training = tmp_path / "run/training"
    assert find_training(str(spec)) == str(training)
    with pytest.raises(ConfigError, match="no training has begun in"):
        find_training(str(tmp_path / "run"))
    make(training)
    assert find_training(str(tmp_path / "run")) == str(training)
    assert find_training(str(training)) == str(training)


def test_of_several_fine_tunings_one_must_be_named(tmp_path: Path) -> None:
    make(tmp_path / "evaluation/tnews/finetune-42")
    assert find_training(str(tmp_path)).endswith("evaluation/tnews/finetune-42")
    make(tmp_path / "evaluation/iflytek/finetune-42")
    with pytest.raises(ConfigError, match="several trainings .*iflytek/finetune-42, evaluation/tn"):
        find_training(str(tmp_path))


def test_a_store_is_asked_again_only_for_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, line(1))
    texts = {"metrics.jsonl": line(1), "attempts.json": (tmp_path / "attempts.json").read_text()}
    read: list[str] = []

    def read_text(uri: str) -> str:
        read.append(uri.rpartition("/")[2])
        return texts[read[-1]]

    monkeypatch.setattr("pyfsb.storage.read_text", read_text)
    monkeypatch.setattr("pyfsb.storage.version", lambda uri: texts["metrics.jsonl"])
    monkeypatch.setattr("pyfsb.storage.exists", lambda uri: False)
    monkeypatch.setattr("pyfsb.training.watch.stored_states", lambda uri: ["step-00000001"])
    watched = Follower("s3://bucket/run/training", clock=lambda: 1010.0)
    assert watched.poll().step == 1
    assert watched.poll().checkpoint_step == 1
    assert read.count("metrics.jsonl") == 1
    texts["metrics.jsonl"] += line(2)
    assert watched.poll().step == 2
    assert list(watched.losses) == [1.0, 2.0]


def test_watching_imports_no_torch() -> None:
    code = (
        "import sys, pyfsb.cli.__main__ as m, pyfsb.training.watch; m.build_parser(); "
        "assert not {'torch', 'tqdm', 'tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
