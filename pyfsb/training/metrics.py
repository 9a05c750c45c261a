# SPDX-License-Identifier: Apache-2.0
"""One line a step: the format of metrics.jsonl, which is the source of truth of a training.

Each optimizer step is there once: a continued training cuts the lines after the state it continues
from. The file is strict JSON: a loss that is no number is `null` there and NaN here. Written by
`meters`; read by the export, `usage`, `watch`, benchmarks. Never imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypedDict

METRICS_NAME: Final = "metrics.jsonl"
_NUMBERS: Final = ("loss", "gradient_norm")


class StepMetrics(TypedDict):
    """One line of metrics.jsonl; times are of the first rank, counts of all ranks together."""

    step: int
    """Optimizer steps taken, this one included."""
    loss: float
    """Sum of losses over the number of targets, in nats."""
    gradient_norm: float
    """Global norm before clipping."""
    learning_rate: float
    """Rate of this step."""
    epoch: int
    """Passes over the samples completed before this step."""
    num_samples: int
    """Samples seen in all."""
    num_tokens: int
    """Tokens seen in all, padding not counted."""
    num_targets: int
    """Predicted tokens of this step."""
    seconds: float
    """Wall time of this step without saving and validation."""
    tokens_per_second: float
    """Tokens of this step over its wall time."""
    samples_per_second: float
    """Samples of this step over its wall time."""
    data_seconds: float
    """Part of it spent waiting for samples."""
    communication_seconds: float
    """Part of it spent in collectives (`pyfsb.training.timing` says how that is measured)."""
    checkpoint_seconds: float
    """Time between the step before and this one in which training stood still for a saved state."""
    mfu: float | None
    """Model FLOPs of the step over what all devices could have done meanwhile at 16 bit."""
    memory_bytes: int
    """Resident memory of the first rank."""
    device_bytes: int | None
    """Most memory of its device in use so far. None on a CPU."""
    is_skipped: bool
    """Its gradients were not used."""
    validation_loss: float | None
    """Loss on held-out samples after this step. None where it was not measured."""
    at: float
    """Unix time of its end."""


def to_line(metrics: StepMetrics) -> str:
    """Return a step as a line of metrics.jsonl."""
    value = dict(metrics)
    for key in _NUMBERS:
        if not math.isfinite(metrics[key]):
            value[key] = None
    return json.dumps(value, allow_nan=False) + "\n"


def iter_metrics(lines: Iterable[str]) -> Iterator[StepMetrics]:
    """Yield the steps of lines; one cut short by a crash is left out."""
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        for key in _NUMBERS:
            if value[key] is None:
                value[key] = math.nan
        yield value


def read_metrics(path: Path) -> list[StepMetrics]:
    """Return the steps of a metrics.jsonl, nothing where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return list(iter_metrics(file))


def cut_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and a line cut short, from a metrics.jsonl."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as kept:
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                kept.writelines(to_line(m) for m in iter_metrics(file) if m["step"] <= step)
    partial.replace(path)


def final_loss(steps: list[StepMetrics]) -> float | None:
    """Return the mean loss over the last tenth of the steps, weighted by targets."""
    tail = steps[-math.ceil(len(steps) / 10) :] if steps else []
    used = [metrics for metrics in tail if math.isfinite(metrics["loss"])]
    num_targets = sum(metrics["num_targets"] for metrics in used)
    if not num_targets:
        return None
    return sum(metrics["loss"] * metrics["num_targets"] for metrics in used) / num_targets
