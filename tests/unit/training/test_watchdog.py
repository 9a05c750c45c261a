"""A rank that hangs ends with stacks and another try; the others do not wait for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pyfsb.training import watchdog as module
from pyfsb.training.watchdog import Watchdog


class Bell:
    """An alarm within this process."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.is_gone = False

    def call(self, text: str) -> None:
        self.text = self.text or text

    def heard(self) -> str | None:
        if self.is_gone:
            raise ConnectionError("reset")
        return self.text


class End:
    """Instead of the end of the process."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.has_come = threading.Event()

    def __call__(self, reason: str) -> None:
        self.reason = reason
        self.has_come.set()


@pytest.fixture
def end() -> End:
    return End()


def test_a_loop_that_beats_goes_on(tmp_path: Path, end: End) -> None:
    with Watchdog(0.4, tmp_path, end=end) as watchdog:
        for step in range(20):
            watchdog.beat(step)
            time.sleep(0.05)
    assert not end.has_come.is_set()
    assert not (tmp_path / "stacks").exists()


def test_a_hang_is_told_with_stacks_and_to_the_others(
    tmp_path: Path, end: End, capfd: pytest.CaptureFixture[str]
) -> None:
    bell = Bell()
    with Watchdog(0.2, tmp_path, alarm=bell, end=end) as watchdog:
        watchdog.beat(7)
        assert end.has_come.wait(10)
    assert "rank 0 has not gone on for 0 s after step 7" in (end.reason or "")
    assert "training.hang_timeout_seconds = 0.2" in (bell.text or "")
    text = (tmp_path / "stacks/rank-0.txt").read_text()
    assert "test_a_hang_is_told_with_stacks" in text  # where the main thread waits
    assert "test_a_hang_is_told_with_stacks" in capfd.readouterr().err


def test_the_first_step_may_take_longer(tmp_path: Path, end: End) -> None:
    started = time.monotonic()
    with Watchdog(0.3, tmp_path, end=end):
        assert end.has_come.wait(10)
    assert time.monotonic() - started > 0.3 * module.FIRST_STEP_FACTOR
    assert "its first step" in (end.reason or "")


def test_a_rank_hears_of_another_and_writes_its_own_stacks(tmp_path: Path, end: End) -> None:
    bell = Bell()
    with Watchdog(4.0, tmp_path, alarm=bell, end=end) as watchdog:
        watchdog.beat(1)
        bell.call("rank 3 has not gone on")
        assert end.has_come.wait(10)
    assert "rank 3 has not gone on" in (end.reason or "")
    assert (tmp_path / "stacks/rank-0.txt").is_file()


def test_a_store_that_stays_away_ends_the_rank(tmp_path: Path, end: End) -> None:
    bell = Bell()
    bell.is_gone = True
    with Watchdog(2.0, tmp_path, alarm=bell, end=end) as watchdog:
        while not end.has_come.wait(0.05):
            watchdog.beat(1)
    assert "store is gone: reset" in (end.reason or "")


def test_an_error_calls_the_others_and_a_good_end_does_not(tmp_path: Path, end: End) -> None:
    bell = Bell()
    with Watchdog(5.0, tmp_path, alarm=bell, end=end):
        pass
    assert bell.text is None
    with pytest.raises(KeyError), Watchdog(None, tmp_path, alarm=bell, end=end):
        raise KeyError
    assert bell.text == "rank 0 ended with an error"


def test_without_a_time_out_nothing_is_watched(
    tmp_path: Path, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_LOOK_SECONDS", 0.02)
    with Watchdog(None, tmp_path, end=end):
        assert not end.has_come.wait(0.3)
