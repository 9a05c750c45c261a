"""What a report says, and when it is written; without a server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from operators.progress.reports import Board, Report, Run, format_duration, read_progress
from operators.progress.server import ProgressServer
from pyfsb.resources.status import Progress
from pyfsb.schema import parse
from tests.unit.operators.test_progress import RUN, STAMP, Clock, FakeCluster, a_report


def read(before: Progress | None = None, **report: Any) -> Progress:
    return read_progress(
        parse(Report, a_report(**report), source="body"), before, reported_at=STAMP
    )


def test_a_report_becomes_progress() -> None:
    found = read(
        step="37", total_steps="40", loss="2.34567", tokens_per_second="1234.5", mfu="0.41234",
        task="tnews", learning_rate="0.1",
    )  # fmt: skip
    assert found == Progress(
        step=37, total_steps=40, percentage=50, loss="2.3457", tokens_per_second=1234,
        mfu="0.412", eta_seconds=7500, eta="2h05m", task="tnews", reported_at=STAMP,
    )  # fmt: skip


@pytest.mark.parametrize("value", ["nan", "inf", "x", "", "1e300", "-3e20"])
def test_what_is_no_number_is_left_out(value: str) -> None:
    found = read(Progress(mfu="0.100"), mfu=value, step=value, total_steps=value)
    assert (found.mfu, found.step, found.total_steps) == ("0.100", None, None)


@pytest.mark.parametrize(
    ("value", "loss"), [("nan", "nan"), ("-Inf", "-inf"), ("x", "1.0000"), ("", "1.0000")]
)
def test_a_loss_that_is_none_is_shown(value: str, loss: str) -> None:
    found = read(Progress(loss="1.0000"), loss=value)
    assert found.loss == loss
    assert isinstance(float(loss), float)  # as Prometheus takes it


def test_a_report_need_not_repeat_everything_but_the_future() -> None:
    before = read(step="3", total_steps="10", loss="2")
    after = read(before, percentage=None, eta=None, step="4")
    assert (after.step, after.total_steps, after.loss) == (4, 10, "2.0000")
    assert (after.percentage, after.eta, after.eta_seconds) == (None, None, None)


def test_transformers_last_word_means_the_last_step() -> None:
    before = read(current_step="37", total_steps="40")
    assert before.step == 37
    assert read(before, percentage=100, eta=0, train_loss="1.5").step == 40


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (61, "1m01s"), (7500, "2h05m"), (90061, "1d01h")],
)
def test_durations_are_for_people(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


def test_an_older_report_never_comes_second() -> None:
    board = Board()
    for step in ("1", "2"):
        body = parse(Report, a_report(step=step), source="body")
        board.note(RUN, body, now=0.0, reported_at=STAMP)
        if step == "1":
            assert board.take(RUN, now=0.0)
    assert board.take(RUN, now=9.0) is None
    assert board.due(now=9.0) == []
    board.finish(RUN, is_written=True)
    assert board.due(now=9.0) == [RUN]


def test_writes_that_take_long_are_no_reason_to_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many runs' writes waits for its time-out while the API server is away."""
    monkeypatch.setattr("operators.progress.server._TICK_SECONDS", 0.01)
    clock = Clock()
    healths: list[int] = []

    async def go() -> None:
        server = ProgressServer(FakeCluster(), audience="aud", clock=clock)
        report = parse(Report, {"trainerStatus": {}}, source="test")
        for name in "abc":
            server.board.note(
                ("TrainingRun", "team", name), report, now=clock.now, reported_at=STAMP
            )

        async def wait_long(_run: Run) -> None:
            healths.append((await server.tell_health(cast("Any", None))).status)
            clock.now += 40

        monkeypatch.setattr(server, "_write_quietly", wait_long)
        task = asyncio.create_task(server._tick())
        while len(healths) < 3:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(go())
    assert healths[:3] == [200, 200, 200]
