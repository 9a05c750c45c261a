"""Ranks that hang, fail or are killed, under torchrun and the launcher: who ends when, with what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launched() -> Iterator[Launch]:
    """Starts two ranks by the launcher; none of them outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, *does: str, hang_seconds: float) -> subprocess.Popen[str]:
        started.append(_launch(folder, *does, hang_seconds=hang_seconds))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _launch(folder: Path, *does: str, hang_seconds: float) -> subprocess.Popen[str]:
    code = (
        "import sys; from pyfsb.config import ParallelismSpec; "
        "from pyfsb.training.launcher import launch; "
        "p = ParallelismSpec(num_processes=2, threads_per_process=1); "
        "sys.exit(launch('tests.helpers.hanging_rank', [], p))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stderr=subprocess.PIPE,
        env={
            **os.environ, "RANK_DOES": json.dumps(does), "RANK_FOLDER": str(folder),
            "HANG_SECONDS": str(hang_seconds),
        },
    )  # fmt: skip


@pytest.mark.parametrize("does", [("sleep", "reduce"), ("reduce", "sleep")])
def test_of_two_ranks_one_hangs_and_both_tell_where(
    launched: Launch, does: tuple[str, str], tmp_path: Path
) -> None:
    process = launched(tmp_path, *does, hang_seconds=2.0)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 129, errors
    assert "has not gone on for" in errors
    where = {"sleep": "in trouble", "reduce": "in all_reduce"}
    for rank, word in enumerate(does):
        text = (tmp_path / f"stacks/rank-{rank}.txt").read_text()
        assert where[word] in text
        assert "hanging_rank.py" in text


def test_a_rank_that_keeps_the_interpreters_lock_is_ended_too(
    launched: Launch, tmp_path: Path
) -> None:
    process = launched(tmp_path, "hold", "spin", hang_seconds=1.0)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 129, errors
    assert "Timeout (0:00:0" in errors  # faulthandler's own words
    assert "in trouble" in errors


@pytest.mark.parametrize("waiting", ["reduce", "sleep"])
def test_an_error_of_one_rank_ends_the_other_soon(
    launched: Launch, waiting: str, tmp_path: Path
) -> None:
    started = time.monotonic()
    process = launched(tmp_path, "fail", waiting, hang_seconds=10.0)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 3, errors
    assert "DataError: row 7 is wrong" in errors
    assert time.monotonic() - started < 150


def test_a_rank_killed_for_memory_asks_for_another_try(launched: Launch, tmp_path: Path) -> None:
    process = launched(tmp_path, "spin", "reduce", hang_seconds=60.0)
    deadline = time.monotonic() + 150
    while not (tmp_path / "pid-1").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 129, errors
    assert "a rank of tests.helpers.hanging_rank was lost" in errors
