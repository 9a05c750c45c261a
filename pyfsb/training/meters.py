# SPDX-License-Identifier: Apache-2.0
"""What a training tells the world after each step: lines, Prometheus, TensorBoard, MLflow, a bar.

The loop gives the first process's meters a `StepOutcome` a step. `metrics.jsonl` gets its line at
once and is the source of truth (`metrics` says what each field is); everything else is derived:

- `metrics.prom` and, where a port is given, an endpoint: the gauges of `exporters`, every five
  seconds and on request. TensorBoard: every step at first, then one a second. MLflow: by a thread.
- `attempts.json`: when the training was started and seen last, for goodput and device time.
- reports to the operator (`progress`) and a bar on a terminal; elsewhere a log line now and then.

Telling a step costs some tens of microseconds (`tests/bench/meters.py`). What is shown:

- p50 and p99 of the step time, and the shares of data wait, communication and saving, are of the
  last 256 steps; MFU is model FLOPs (`flops`) over the devices' 16-bit peak, unknown on a CPU.
- goodput is the time in steps that count over the time since the first start, restarts included.
- energy, emissions and cost are `training.energy` times device time; stated, not measured.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tqdm import tqdm

from pyfsb.config import EnergySpec
from pyfsb.training.exporters import (
    PROMETHEUS_NAME,
    TENSORBOARD_FOLDER,
    Figures,
    Mlflow,
    Prometheus,
    TensorBoard,
)
from pyfsb.training.host_memory import HostMemory
from pyfsb.training.metrics import (
    METRICS_NAME,
    StepMetrics,
    cut_after,
    final_loss,
    read_metrics,
    to_line,
)
from pyfsb.training.progress import Progress, Work, find_target
from pyfsb.training.usage import (
    ATTEMPTS_NAME,
    Attempt,
    Attempts,
    Totals,
    measure_usage,
    read_attempts,
    sum_steps,
    write_attempts,
)
from pyfsb.training.window import Window

__all__ = [
    "ATTEMPTS_NAME",
    "METER_FILES",
    "METRICS_NAME",
    "PROMETHEUS_NAME",
    "TENSORBOARD_FOLDER",
    "Meters",
    "StepMetrics",
    "StepOutcome",
    "cut_after",
    "final_loss",
    "open_meters",
    "read_metrics",
]
METER_FILES: Final = (METRICS_NAME, ATTEMPTS_NAME)
"""What a continued training needs of an earlier one's meters; goes to storage with each state."""
_EXPORT_SECONDS: Final = 5.0
_LOG_EVERY_STEPS: Final = 50
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """What the loop knows after a step; times are this process's, counts of all together."""

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
    num_step_tokens: int
    """Tokens of this step."""
    num_step_samples: int
    """Samples of this step."""
    num_flops: float
    """Model FLOPs of this step; 0 where nobody counts them."""
    seconds: float
    """Wall time of this step without saving and validation (`StepTimer.take`)."""
    data_seconds: float = 0.0
    """Part of it spent waiting for samples."""
    communication_seconds: float = 0.0
    """Part of it spent in collectives."""
    checkpoint_seconds: float = 0.0
    """Training stood still for a saved state since the step before."""
    is_skipped: bool = False
    """Its gradients were not used."""
    validation_loss: float | None = None
    """Loss on held-out samples after this step. None: not measured."""


class Meters:
    """Tells the steps of one training; of the first process only."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        work: Work,
        step: int,
        metrics_port: int | None = None,
        mlflow_uri: str | None = None,
        energy: EnergySpec | None = None,
    ) -> None:
        """Open the outputs of a training that starts or continues.

        Args:
            folder: The training's local folder, with `METER_FILES` of earlier attempts.
            name: Label of the Prometheus series and of the bar.
            work: What its progress is measured against.
            step: Steps already taken; later lines are cut.
            metrics_port: As in `TrainingSpec`.
            mlflow_uri: As in `TrainingSpec`.
            energy: As in `TrainingSpec`.

        Raises:
            ConfigError: The port cannot be had, or MLflow not be used.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._work = folder, name, work
        self._energy = energy or EnergySpec()
        self._lock = threading.Lock()  # a scrape comes from another thread
        self._num_skipped = 0
        self._validation_loss: float | None = None
        self._newest: StepMetrics | None = None
        self._read_device_bytes = _device_reader(work.device)
        self._memory = HostMemory()
        self._start(step)
        before = read_attempts(folder)
        self._mlflow = (
            Mlflow(mlflow_uri, name=name, run_id=before.mlflow_run if before else None)
            if mlflow_uri
            else None
        )
        self._attempts = self._begin_attempt(before, step)
        self._board = TensorBoard(folder / TENSORBOARD_FOLDER, step=step)
        self.prometheus = Prometheus(
            folder / PROMETHEUS_NAME, run=name, read=self.figures, port=metrics_port
        )
        self._next_export = 0.0
        self._bar = tqdm(
            total=work.num_steps,
            initial=step,
            desc=name,
            unit="step",
            disable=not sys.stderr.isatty(),
            leave=False,
            ncols=shutil.get_terminal_size().columns,  # some terminals say 0, then 80
        )
        target = find_target()
        self._progress = Progress(work, target, step=step) if target else None

    def record(self, outcome: StepOutcome) -> None:
        """Tell one step."""
        metrics = self._to_metrics(outcome)
        self._lines.write(to_line(metrics))
        self._lines.flush()
        with self._lock:
            self._newest = metrics
            self._window.steps.append(metrics)
            self._totals.add(metrics)
            self._num_skipped += metrics["is_skipped"]
            if metrics["validation_loss"] is not None:
                self._validation_loss = metrics["validation_loss"]
        figures = _step_figures(metrics)
        self._board.add(figures, outcome.step)
        if self._mlflow:
            self._mlflow.add(figures, outcome.step)
        if time.monotonic() >= self._next_export:
            self._note_attempt(has_ended=False)
            self.prometheus.write()
            self._next_export = time.monotonic() + _EXPORT_SECONDS
        if self._progress:
            self._progress.note(
                step=outcome.step, loss=outcome.loss, seconds=outcome.seconds,
                tokens_per_second=metrics["tokens_per_second"], mfu=metrics["mfu"],
            )  # fmt: skip
        self._show(metrics)

    def rewind(self, step: int) -> None:
        """Forget the steps after one: the training goes on from its state."""
        self._lines.close()
        with self._lock:
            self._start(step)
        self._board.forget_after(step)
        self._bar.n = step
        self._bar.refresh()

    def figures(self) -> Figures:
        """Return the present figures by the names of the gauges."""
        with self._lock:
            if self._newest is None:
                return {"num_steps": float(self._work.num_steps)}
            found = dict(_step_figures(self._newest))
            window = self._window
            used = measure_usage(self._seen(has_ended=False), self._totals, self._energy)
            return found | {
                "step": float(self._newest["step"]),
                "num_steps": float(self._work.num_steps),
                "validation_loss": self._validation_loss,
                "step_seconds_p50": window.seconds_at(0.5),
                "step_seconds_p99": window.seconds_at(0.99),
                "data_share": window.data_share,
                "communication_share": window.communication_share,
                "checkpoint_share": window.checkpoint_share,
                "num_skipped_steps": float(self._num_skipped),
                "goodput": used.goodput,
                "device_seconds": used.device_seconds,
                "kwh": used.kwh,
                "kg_co2e": used.kg_co2e,
                "cost": used.cost,
            }

    def close(self) -> None:
        """Flush everything."""
        self._note_attempt(has_ended=True)
        self.prometheus.close()
        self._bar.close()
        self._board.close()
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._lines.close()
        self._memory.close()
        if self._mlflow:
            self._mlflow.close()
        if self._progress:
            self._progress.close()

    def _start(self, step: int) -> None:
        """Cut the lines after a step and count what is left."""
        path = self._folder / METRICS_NAME
        cut_after(path, step)
        self._totals: Totals = sum_steps(self._folder)
        self._window = Window()
        self._lines = path.open("a", encoding="utf-8")

    def _to_metrics(self, outcome: StepOutcome) -> StepMetrics:
        seconds = max(outcome.seconds, 1e-9)
        tokens_per_second = outcome.num_step_tokens / seconds
        return StepMetrics(
            step=outcome.step,
            loss=outcome.loss,
            gradient_norm=outcome.gradient_norm,
            learning_rate=outcome.learning_rate,
            epoch=outcome.epoch,
            num_samples=outcome.num_samples,
            num_tokens=outcome.num_tokens,
            num_targets=outcome.num_targets,
            seconds=round(outcome.seconds, 6),
            tokens_per_second=round(tokens_per_second, 1),
            samples_per_second=round(outcome.num_step_samples / seconds, 2),
            data_seconds=round(outcome.data_seconds, 6),
            communication_seconds=round(outcome.communication_seconds, 6),
            checkpoint_seconds=round(outcome.checkpoint_seconds, 6),
            mfu=self._work.mfu(tokens_per_second, flops_per_second=outcome.num_flops / seconds),
            memory_bytes=self._memory.resident_bytes(),
            device_bytes=self._read_device_bytes(),
            is_skipped=outcome.is_skipped,
            validation_loss=outcome.validation_loss,
            at=round(time.time(), 3),
        )

    def _begin_attempt(self, before: Attempts | None, step: int) -> Attempts:
        now = time.time()
        attempt = Attempt(
            started_at=now, seen_at=now, first_step=step, last_step=step,
            num_devices=self._work.num_devices,
        )  # fmt: skip
        attempts = Attempts(
            name=self._name,
            num_steps=self._work.num_steps,
            device=self._work.device,
            attempts=((*before.attempts, attempt) if before else (attempt,)),
            mlflow_run=self._mlflow.run_id if self._mlflow else None,
        )
        write_attempts(attempts, self._folder)
        return attempts

    def _seen(self, *, has_ended: bool) -> Attempts:
        """Return the attempts with this one seen now."""
        last = self._attempts.attempts[-1].model_copy(
            update={
                "seen_at": time.time(),
                "last_step": self._newest["step"] if self._newest else self._first_step,
                "has_ended": has_ended,
            }
        )
        return self._attempts.model_copy(update={"attempts": (*self._attempts.attempts[:-1], last)})

    @property
    def _first_step(self) -> int:
        return self._attempts.attempts[-1].first_step

    def _note_attempt(self, *, has_ended: bool) -> None:
        write_attempts(self._seen(has_ended=has_ended), self._folder)

    def _show(self, metrics: StepMetrics) -> None:
        speed = f"{metrics['tokens_per_second']:,.0f} tok/s"
        self._bar.set_postfix_str(f"loss {metrics['loss']:.4f}, {speed}", refresh=False)
        self._bar.update(1)
        if self._bar.disable and metrics["step"] % _LOG_EVERY_STEPS == 0:
            _log.info(
                "%s: step %d/%d, loss %.4f, %s",
                self._name, metrics["step"], self._bar.total, metrics["loss"], speed,
            )  # fmt: skip


@contextmanager
def open_meters(
    folder: Path | None,
    *,
    name: str,
    work: Work,
    step: int,
    metrics_port: int | None = None,
    mlflow_uri: str | None = None,
    energy: EnergySpec | None = None,
) -> Iterator[Meters | None]:
    """Open meters for the length of the block; None for a process that does not write.

    Args: those of `Meters`.
    """
    if folder is None:
        yield None
        return
    meters = Meters(
        folder, name=name, work=work, step=step, metrics_port=metrics_port,
        mlflow_uri=mlflow_uri, energy=energy,
    )  # fmt: skip
    try:
        yield meters
    finally:
        meters.close()


_STEP_FIGURES: Final = (
    "loss", "gradient_norm", "learning_rate", "tokens_per_second", "samples_per_second", "seconds",
    "data_seconds", "communication_seconds", "mfu", "memory_bytes", "device_bytes",
    "validation_loss",
)  # fmt: skip


def _step_figures(metrics: StepMetrics) -> Figures:
    return {key: metrics[key] for key in _STEP_FIGURES}


def _device_reader(device: str) -> Callable[[], int | None]:
    if device == "cpu":
        return lambda: None
    from pyfsb.training.distributed import peak_device_bytes

    return peak_device_bytes
