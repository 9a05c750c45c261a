# SPDX-License-Identifier: Apache-2.0
"""What a training took: attempts, goodput, device time, energy, emissions and cost.

Goodput is the time in steps that count (each step of metrics.jsonl once, skipped ones not) over the
time since the first start: a crash costs the steps that were lost and the pause after it. Steps
come from metrics.jsonl; starts and ends from attempts.json, which `meters` keeps up to date every
few seconds, so that a killed attempt is known too. Never imports torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pyfsb.config import EnergySpec
from pyfsb.consumption import ResourceUse
from pyfsb.schema import Schema
from pyfsb.training.metrics import METRICS_NAME, StepMetrics, iter_metrics

ATTEMPTS_NAME: Final = "attempts.json"
_JOULES_PER_KWH: Final = 3.6e6
_log = logging.getLogger(__name__)


class Attempt(Schema):
    """One time that a training was started."""

    started_at: float
    """Unix time of its start."""
    seen_at: float
    """Unix time at which it was seen last; its end, unless it was killed a moment later."""
    first_step: int
    """Steps taken before it."""
    last_step: int
    """Steps taken when it was seen last."""
    num_devices: int
    """Devices of all its processes together; on CPU one a process."""
    has_ended: bool = False
    """False: it still runs, or was killed."""


class Attempts(Schema):
    """Content of attempts.json."""

    name: str
    """Name of the run."""
    num_steps: int
    """Steps of the whole training."""
    device: str = "cpu"
    """What the driver calls a device."""
    attempts: tuple[Attempt, ...] = ()
    """Oldest first."""
    mlflow_run: str | None = None
    """Run of an MLflow server that a further attempt goes on with."""

    @property
    def has_ended(self) -> bool:
        """The last one ended in good order."""
        return bool(self.attempts) and self.attempts[-1].has_ended

    @property
    def device_seconds(self) -> float:
        """Devices times the time they were held."""
        return sum((a.seen_at - a.started_at) * a.num_devices for a in self.attempts)

    @property
    def wall_seconds(self) -> float:
        """From the first start until it was seen last."""
        if not self.attempts:
            return 0.0
        return self.attempts[-1].seen_at - self.attempts[0].started_at


class Totals:
    """Sums over the steps that count."""

    def __init__(self, steps: Iterable[StepMetrics] = ()) -> None:
        """Add steps."""
        self.seconds = 0.0
        self.num_tokens = 0.0
        self._mfu_seconds = 0.0
        self._known_seconds = 0.0
        for metrics in steps:
            self.add(metrics)

    def add(self, metrics: StepMetrics) -> None:
        """Add one step; one that was skipped counts nothing."""
        if metrics.get("is_skipped"):
            return
        self.seconds += metrics["seconds"]
        self.num_tokens += metrics["seconds"] * metrics["tokens_per_second"]
        mfu = metrics.get("mfu")
        if mfu is not None:
            self._mfu_seconds += mfu * metrics["seconds"]
            self._known_seconds += metrics["seconds"]

    @property
    def mfu(self) -> float | None:
        """Mean over the time, or None."""
        return self._mfu_seconds / self._known_seconds if self._known_seconds else None

    @property
    def tokens_per_second(self) -> float:
        """Tokens over the time in steps."""
        return self.num_tokens / self.seconds if self.seconds else 0.0

    def goodput(self, wall_seconds: float) -> float:
        """Return the share of a time that went into these steps."""
        return min(1.0, self.seconds / wall_seconds) if wall_seconds > 0 else 0.0


def sum_steps(folder: Path) -> Totals:
    """Return the totals of a training's folder."""
    path = folder / METRICS_NAME
    if not path.is_file():
        return Totals()
    with path.open(encoding="utf-8") as file:
        return Totals(iter_metrics(file))


def read_attempts(folder: Path) -> Attempts | None:
    """Return the attempts of a training's folder, or None."""
    path = folder / ATTEMPTS_NAME
    return parse_attempts(path.read_text(), source=str(path)) if path.is_file() else None


def parse_attempts(text: str, *, source: str) -> Attempts | None:
    """Return the attempts of an attempts.json's text, or None when it cannot be read."""
    try:
        return Attempts.model_validate_json(text)
    except ValueError as exc:  # it only tells: a training does not end for it
        _log.warning("%s is not used: %s", source, str(exc).split("\n")[0])
        return None


def write_attempts(attempts: Attempts, folder: Path) -> None:
    """Write attempts.json, whole or not at all."""
    partial = folder / f".{ATTEMPTS_NAME}.partial"
    partial.write_text(attempts.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / ATTEMPTS_NAME)


def read_usage(folder: Path, energy: EnergySpec) -> ResourceUse | None:
    """Return what the training in a folder took, or None where nobody counted.

    Args:
        folder: The training's local folder; its meters are closed.
        energy: Stated power and price.
    """
    attempts = read_attempts(folder)
    if attempts is None or not attempts.attempts:
        return None
    return measure_usage(attempts, sum_steps(folder), energy)


def measure_usage(attempts: Attempts, totals: Totals, energy: EnergySpec) -> ResourceUse:
    """Return what attempts and steps amount to, with the statements they are priced by."""
    device_seconds = attempts.device_seconds
    watts, grid, price = (
        energy.watts_per_device, energy.kg_co2e_per_kwh, energy.price_per_device_hour,
    )  # fmt: skip
    kwh = None if watts is None else watts * device_seconds / _JOULES_PER_KWH
    return ResourceUse(
        num_devices=attempts.attempts[-1].num_devices,
        device=attempts.device,
        num_attempts=len(attempts.attempts),
        wall_seconds=round(attempts.wall_seconds, 3),
        device_seconds=round(device_seconds, 3),
        goodput=round(totals.goodput(attempts.wall_seconds), 4),
        tokens_per_second=round(totals.tokens_per_second, 1),
        mfu=None if totals.mfu is None else round(totals.mfu, 4),
        watts_per_device=watts,
        kwh=kwh,
        kg_co2e_per_kwh=grid,
        kg_co2e=None if kwh is None or grid is None else kwh * grid,
        price_per_device_hour=price,
        cost=None if price is None else price * device_seconds / 3600,
    )
