"""`fsb train watch` prints what its view says."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from pyfsb.cli import train
from pyfsb.cli.__main__ import main
from pyfsb.training.watch import Follower
from tests.unit.training.test_watch import line, make


def shown(folder: Path, *, now: float) -> str:
    follower = Follower(str(folder), clock=lambda: now)
    console = Console(file=io.StringIO(), width=120)
    console.print(train.build_panel(follower.poll(), follower.losses))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return " ".join(text.split())


def test_the_panel_shows_step_speed_memory_and_time_left(tmp_path: Path) -> None:
    make(tmp_path, *(line(step) for step in range(1, 5)))
    text = shown(tmp_path, now=1010.0)
    for part in (
        "demo", "step 4/10 40.0% 12 s left", "loss 4.0000", "tokens/s 100", "MFU 50.0%",
        "data wait 25.0%", "communication 12.5%", "goodput 80.0%", "memory 1.00 GiB",
        "step time 2 s, p99 2 s", "skipped steps 0", "▁▃▆█",
    ):  # fmt: skip
        assert part in text, text
    assert "validation" not in text


def test_silence_a_stop_and_the_end_are_told(tmp_path: Path) -> None:
    make(tmp_path, line(1))
    assert "no step seen for 2 min 05 s" in shown(tmp_path, now=1002.0 + 125)
    make(tmp_path, line(1), has_ended=True)
    assert "stopped" in shown(tmp_path, now=5000.0)
    (tmp_path / "record.json").write_text("{}")
    assert "complete" in shown(tmp_path, now=5000.0)


def test_scripts_get_strict_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, line(1), line(2, loss=math.nan))
    assert main(["train", "watch", str(tmp_path), "--output", "json"]) == 0
    value = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert (value["step"], value["num_steps"], value["loss"]) == (2, 10, None)


def test_without_a_terminal_one_table_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, line(1))
    for more in ([], ["--once"]):
        assert main(["train", "watch", str(tmp_path), *more]) == 0
        assert "step 1/10" in capsys.readouterr().out


def test_the_live_panel_ends_with_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, line(1))
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            (tmp_path / "record.json").write_text("{}")

    monkeypatch.setattr(train.time, "sleep", sleep)
    train._follow(Follower(str(tmp_path)))
    assert pauses == [1.0, 1.0]
    assert "complete" in capsys.readouterr().out


def test_a_place_without_a_training_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "watch", str(tmp_path)]) == 2
    assert f"no training has begun in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""), ([math.nan], ""), ([1.0], "▁"), ([2.0, 2.0], "▁▁"), ([0.0, 7.0], "▁█"),
        ([0.0, math.nan, 7.0], "▁█"), ([0.0, 0.0, 7.0, 7.0], "▁▁██"),
    ],
)  # fmt: skip
def test_sparklines(values: list[float], line: str) -> None:
    assert train.sparkline(values) == line
    assert len(train.sparkline([float(n) for n in range(1000)])) == 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.4, "5 s"), (65, "1 min 05 s"), (7300, "2 h 01 min"), (90000, "1 d 01 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert train._duration(seconds) == text
