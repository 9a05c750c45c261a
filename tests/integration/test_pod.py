"""A gang of pods that is told to stop, comes back with another size, or has a member in trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pyfsb import records
from pyfsb.config import resolve_spec
from pyfsb.data.prepare import prepare
from pyfsb.training.state_folder import local_states
from pyfsb.training.usage import read_attempts
from tests.helpers.pods import start_pod, steps_of, wait_for_step
from tests.helpers.specs import DROPOUTS, TINY_CONFIGS, tiny_spec, write_spec

GRACE_SECONDS = 30.0
"""Kubernetes' own, after SIGTERM."""
MODEL = "Erlangshen-MegatronBert-1.3B"
NUM_STEPS = 60
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts pods; none outlives the test."""
    pods: list[subprocess.Popen[str]] = []

    def one(*arguments: object, **options: object) -> subprocess.Popen[str]:
        pods.append(start_pod(*arguments, **options))  # type: ignore[arg-type]
        return pods[-1]

    yield one
    for pod in pods:
        if pod.poll() is None:
            os.killpg(pod.pid, signal.SIGKILL)
        pod.communicate()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(resolve_spec(yaml.safe_dump(tiny_spec(folder))))
    return folder / "data"


def make_spec(folder: Path, data: Path, name: str = "spec.yaml", **changes: object) -> Path:
    """Write the spec of a run whose data are there."""
    folder.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(data)
    config = {**TINY_CONFIGS[MODEL], **dict.fromkeys(DROPOUTS[MODEL], 0.0)}
    settings: dict[str, object] = {
        "model__config": config, "training__max_steps": NUM_STEPS, "training__num_epochs": 99,
        "training__checkpoint_every_steps": 1,
        **changes,
    }  # fmt: skip
    return write_spec(folder, tiny_spec(folder, **settings), name)


def end(pod: subprocess.Popen[str], timeout: float = 120) -> str:
    """Return a pod's last words."""
    return pod.communicate(timeout=timeout)[1]


def test_a_gang_that_is_stopped_goes_on_with_another_number_of_ranks(
    tmp_path: Path, data: Path, free_port: int, start: Start
) -> None:
    """2 pods, then 1, then 1 with 4 ranks; each step once, losses as without a stop.

    A state is saved after every step, so that a save is under way when the signal comes.
    """
    steady, run = tmp_path / "steady", tmp_path / "run"
    whole = start(make_spec(steady, data), 0, free_port, num_pods=1)
    assert whole.wait(300) == 0, end(whole)
    spec = make_spec(run, data)
    for number_of_pods in (2, 1):
        before = len(steps_of(run))
        pods = [start(spec, n, free_port, num_pods=number_of_pods) for n in range(number_of_pods)]
        wait_for_step(pods, run, before + 2)
        told_at = time.monotonic()
        pods[-1].send_signal(signal.SIGTERM)  # the others hear of it from this one
        words = [end(pod) for pod in pods]
        assert time.monotonic() - told_at < GRACE_SECONDS
        assert [pod.returncode for pod in pods] == [143] * number_of_pods, words
        assert "Traceback" not in "".join(words)
        reached = len(steps_of(run))
        assert before + 2 <= reached < NUM_STEPS
        assert local_states(run / "training/state")[0] == f"step-{reached:08d}"
        assert not list((run / "training/state").glob(".partial*"))
    last = start(spec, 0, free_port, num_pods=1, num_ranks=4)
    assert last.wait(300) == 0, end(last)
    steps, expected = steps_of(run), steps_of(steady)
    assert [step["step"] for step in steps] == list(range(1, NUM_STEPS + 1))
    assert [step["num_samples"] for step in steps] == [step["num_samples"] for step in expected]
    for step, other in zip(steps, expected, strict=True):
        assert step["loss"] == pytest.approx(other["loss"], abs=1e-5)
    attempts = read_attempts(run / "training")
    assert attempts
    assert [attempt.num_devices for attempt in attempts.attempts] == [2, 1, 4]
    record = records.read_record(str(run / "training"))
    assert record.kind == "CheckpointRecord"
    assert record.resources
    assert (record.resources.num_attempts, record.resources.num_devices) == (3, 4)
    assert 0.0 < record.resources.goodput < 1.0


def test_a_wrong_setting_in_one_pod_ends_the_other_one_soon(
    tmp_path: Path, data: Path, free_port: int, start: Start
) -> None:
    good = make_spec(tmp_path / "run", data)
    config = {**TINY_CONFIGS[MODEL], "max_position_embeddings": 32}
    bad = make_spec(tmp_path / "run", data, "bad.yaml", model__config=config)
    started = time.monotonic()
    pods = [start(good, 0, free_port), start(bad, 1, free_port)]
    words = [end(pod, timeout=200) for pod in pods]
    assert [pod.returncode for pod in pods] == [129, 2], words
    assert "data.max_tokens = 64" in words[1]
    assert "the model has 32 positions" in words[1]
    assert "another rank was lost" in words[0]
    assert time.monotonic() - started < 150  # the group's own patience is half an hour
