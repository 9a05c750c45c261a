# SPDX-License-Identifier: Apache-2.0
"""Reports: what one says, what the newest one of each run was, what Prometheus sees of it.

Pure but for the clock that is passed in; the server fills it, knows no network and no cluster.

Source: Kubeflow Trainer 2.3 (`trainerStatus`) and the metric names of transformers 5.23.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from pyfsb.resources.status import Progress
from pyfsb.schema import Json, Schema

PATCH_SECONDS: Final = 3.0
"""Time between two writes of one run's status at least: the API server has other work."""
SILENCE_SECONDS: Final = 600.0
"""A run that has not reported for so long leaves the metrics."""
_GAUGES: Final = {
    "step": "Optimizer steps taken",
    "total_steps": "Optimizer steps in all",
    "loss": "Loss of the last step in nats per target",
    "tokens_per_second": "Tokens of all ranks together, padding not counted",
    "mfu": "Share of the devices' peak FLOP/s that the model's own arithmetic uses",
    "eta_seconds": "Estimated seconds to the end",
}
_NAMES: Final = {
    "step": ("step", "current_step"),
    "total_steps": ("total_steps",),
    "loss": ("loss", "train_loss"),
    "tokens_per_second": ("tokens_per_second", "train_tokens_per_second"),
    "mfu": ("mfu",),
}
"""Our fields and the names they come under: from our trainer, from transformers' callback."""
_MAX_INTEGER: Final = 2**53
_TASK_LIMIT: Final = 100
Run = tuple[str, str, str]
"""Kind, namespace and name."""


class _Wire(Schema):
    """A later version of the protocol may say more than we know."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ReportedMetric(_Wire):
    """One number by name."""

    name: Annotated[str, Field(max_length=200)]
    """What it is."""
    value: Annotated[str, Field(max_length=200)]
    """The number, or a short text."""


class TrainerStatus(_Wire):
    """What a trainer tells."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the work that is done."""
    estimated_remaining_seconds: Annotated[int, Field(ge=0, le=_MAX_INTEGER)] | None = None
    """Seconds to the end."""
    metrics: Annotated[tuple[ReportedMetric, ...], Field(max_length=256)] = ()
    """Everything else."""
    last_updated_time: str | None = None
    """The trainer's clock; ours counts."""


class Report(_Wire):
    """The body of a request."""

    trainer_status: TrainerStatus
    """What the trainer tells."""


def read_progress(report: Report, before: Progress | None, *, reported_at: str) -> Progress:
    """Return the progress after a report.

    Args:
        report: What the trainer told.
        before: The progress until now: a report need not repeat everything.
        reported_at: The server's clock, RFC 3339.
    """
    status = report.trainer_status
    told = {metric.name: metric.value for metric in status.metrics}
    found: Json = {}
    for key, names in _NAMES.items():
        value = next((v for name in names if (v := _number(told.get(name))) is not None), None)
        if value is not None:
            found[key] = _as_field(key, value)
    if "loss" not in found:
        broken = next((told[name] for name in _NAMES["loss"] if name in told), "").lower()
        if broken.lstrip("+-") in ("nan", "inf", "infinity"):
            found["loss"] = broken  # the one number that people must see when it is none
    if told.get("task"):
        found["task"] = told["task"][:_TASK_LIMIT]
    eta = status.estimated_remaining_seconds
    after = (before or Progress()).model_copy(
        update={
            **found, "percentage": status.progress_percentage, "eta_seconds": eta,
            "eta": None if eta is None else format_duration(eta), "reported_at": reported_at,
        }
    )  # fmt: skip
    if after.percentage == 100 and "step" not in found and after.total_steps is not None:
        after = after.model_copy(update={"step": after.total_steps})  # transformers' last word
    return after


def format_duration(seconds: int) -> str:
    """Return a duration in its two largest units, such as 2h05m."""
    minutes, hours = seconds // 60, seconds // 3600
    if seconds < 60:
        return f"{seconds}s"
    if hours == 0:
        return f"{minutes}m{seconds % 60:02d}s"
    if hours < 24:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"


@dataclass(slots=True, kw_only=True)
class _Entry:
    progress: Progress
    seen: float
    next_patch: float = 0.0
    is_pending: bool = False
    is_being_written: bool = False


@dataclass(slots=True, eq=False)
class Board:
    """The newest progress of each run, and whether its status says so already."""

    _entries: dict[Run, _Entry] = field(default_factory=dict)

    def note(self, run: Run, report: Report, *, now: float, reported_at: str) -> None:
        """Keep a report; it waits to be written."""
        entry = self._entries.get(run)
        progress = read_progress(report, entry.progress if entry else None, reported_at=reported_at)
        if entry is None:
            entry = self._entries[run] = _Entry(progress=progress, seen=now)
        entry.progress, entry.seen, entry.is_pending = progress, now, True

    def due(self, *, now: float) -> list[Run]:
        """Return the runs whose newest report may be written now."""
        return [
            run
            for run, entry in self._entries.items()
            if entry.is_pending and not entry.is_being_written and now >= entry.next_patch
        ]

    def pending(self) -> list[Run]:
        """Return every run with something to write, however lately it was written."""
        return [run for run, entry in self._entries.items() if entry.is_pending]

    def take(self, run: Run, *, now: float) -> Json | None:
        """Return what to merge into a run's status; `finish` follows.

        Returns:
            None when nothing waits, or an older report is on its way: it must not come second.
        """
        entry = self._entries.get(run)
        if entry is None or not entry.is_pending or entry.is_being_written:
            return None
        entry.is_pending, entry.is_being_written = False, True
        entry.next_patch = now + PATCH_SECONDS
        # The future is never left from an earlier report: what is not told is removed.
        future = {"percentage": None, "etaSeconds": None, "eta": None}
        return {"progress": {**future, **entry.progress.to_manifest()}}

    def finish(self, run: Run, *, is_written: bool) -> None:
        """Note how a write ended; one that failed waits for another try."""
        entry = self._entries.get(run)
        if entry:
            entry.is_being_written = False
            entry.is_pending = entry.is_pending or not is_written

    def forget_silent(self, *, now: float) -> None:
        """Drop the runs that have not reported for a while."""
        for run in [r for r, e in self._entries.items() if now - e.seen > SILENCE_SECONDS]:
            del self._entries[run]

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the runs on the board, for Prometheus."""
        entries = tuple(self._entries.items())
        for key, text in _GAUGES.items():
            family = GaugeMetricFamily(f"fsb_run_{key}", text, labels=["kind", "namespace", "name"])
            for run, entry in entries:
                value = getattr(entry.progress, key)
                if value is not None:
                    family.add_metric(list(run), float(value))
            yield family

    def describe(self) -> Iterable[Metric]:
        """Say nothing about the gauges before there are runs."""
        return ()


def _number(text: str | None) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= _MAX_INTEGER else None


def _as_field(key: str, value: float) -> int | str:
    """Return a number as the status holds it: the API has no floats."""
    if key == "loss":
        return f"{value:.4f}"
    return f"{value:.3f}" if key == "mfu" else max(0, round(value))
