"""Lines of metrics.jsonl: each step once, cut lines left out, the final loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pyfsb.training.metrics import cut_after, final_loss, read_metrics, to_line


def step(number: int, loss: float = 1.0, num_targets: int = 1) -> Any:
    return {"step": number, "loss": loss, "gradient_norm": 1.0, "num_targets": num_targets}


def test_each_step_is_one_line_and_later_ones_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [to_line(step(number)) for number in range(1, 6)]
    path.write_text("".join(lines) + '{"step": 6, "lo')
    assert [metrics["step"] for metrics in read_metrics(path)] == [1, 2, 3, 4, 5]
    cut_after(path, 3)
    assert path.read_text() == "".join(lines[:3])
    cut_after(path, 0)
    assert path.read_text() == ""
    assert read_metrics(tmp_path / "nothing") == []
    cut_after(tmp_path / "nothing", 5)
    assert read_metrics(tmp_path / "nothing") == []


def test_what_is_no_number_stays_so_when_lines_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(to_line(step(1, loss=math.nan)) + to_line(step(2)))
    cut_after(path, 1)
    assert path.read_text() == to_line(step(1, loss=math.inf))
    assert math.isnan(read_metrics(path)[0]["loss"])


def test_the_final_loss_is_weighted_by_targets() -> None:
    steps = [step(n, loss=9.0) for n in range(18)] + [step(19, 1.0, 3), step(20, 2.0, 1)]
    assert final_loss(steps) == pytest.approx(1.25)
    assert final_loss([]) is None


def test_a_skipped_step_without_a_loss_is_not_in_the_final_one() -> None:
    steps = [step(n, loss=9.0) for n in range(18)] + [step(19, 1.0), step(20, math.nan)]
    assert final_loss(steps) == 1.0
    assert final_loss([step(1, math.nan)]) is None
