# SPDX-License-Identifier: Apache-2.0
"""What a training tells the world after each step: lines, TensorBoard, Prometheus, progress, a bar.

`metrics.jsonl` is the source of truth: one line a step, each step once. A continued training first
cuts the lines after the state it continues from, and TensorBoard is told to forget them too. Only
the first process has meters.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypedDict

from prometheus_client import CollectorRegistry, Gauge, start_http_server, write_to_textfile
from tqdm import tqdm

from pyfsb.errors import ConfigError
from pyfsb.training.progress import Progress, Work, find_target

METRICS_NAME: Final = "metrics.jsonl"
PROMETHEUS_NAME: Final = "metrics.prom"
TENSORBOARD_FOLDER: Final = "tensorboard"
_TEXTFILE_SECONDS = 5.0
_log = logging.getLogger(__name__)

_GAUGES: Final = {
    "step": "Optimizer steps taken",
    "loss": "Mean loss of the step in nats per target",
    "gradient_norm": "Global norm of the gradients before clipping",
    "learning_rate": "Learning rate of the step",
    "tokens_per_second": "Tokens of the step over its wall time, padding not counted",
}


class StepMetrics(TypedDict):
    """One line of metrics.jsonl."""

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
    """Tokens seen in all."""
    num_targets: int
    """Predicted tokens of this step."""
    seconds: float
    """Wall time of this step."""
    tokens_per_second: float
    """Tokens of this step over its wall time."""


class Meters:
    """Writes the metrics of one training."""

    def __init__(
        self, folder: Path, *, name: str, work: Work, step: int, metrics_port: int | None
    ) -> None:
        """Open the outputs of a training that starts or continues.

        Args:
            folder: The training's local folder.
            name: Label of the Prometheus series and of the bar.
            work: What its progress is measured against.
            step: Steps already taken; later lines are cut.
            metrics_port: As in `TrainingSpec`.
        """
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        cut_after(folder / METRICS_NAME, step)
        self._lines = (folder / METRICS_NAME).open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(folder / TENSORBOARD_FOLDER), purge_step=step + 1, flush_secs=10
        )
        self._textfile = folder / PROMETHEUS_NAME
        self._registry = CollectorRegistry()
        self._gauges = {
            key: Gauge(f"fsb_training_{key}", text, ["run"], registry=self._registry)
            for key, text in _GAUGES.items()
        }
        self._name = name
        self._next_textfile = 0.0
        self._server = _serve(metrics_port, self._registry)
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

    def record(self, metrics: StepMetrics) -> None:
        """Tell one step."""
        self._lines.write(json.dumps(metrics) + "\n")
        self._lines.flush()
        for key, gauge in self._gauges.items():
            value = float(metrics[key])  # type: ignore[literal-required]
            gauge.labels(run=self._name).set(value)
            if key != "step":
                self._board.add_scalar(key, value, metrics["step"])
        if time.monotonic() >= self._next_textfile:
            write_to_textfile(str(self._textfile), self._registry)
            self._next_textfile = time.monotonic() + _TEXTFILE_SECONDS
        if self._progress:
            self._progress.note(
                step=metrics["step"], loss=metrics["loss"], seconds=metrics["seconds"],
                tokens_per_second=metrics["tokens_per_second"],
            )  # fmt: skip
        speed = f"{metrics['tokens_per_second']:,.0f} tok/s"
        self._bar.set_postfix_str(f"loss {metrics['loss']:.4f}, {speed}", refresh=False)
        self._bar.update(1)
        if self._bar.disable and metrics["step"] % 50 == 0:
            _log.info(
                "%s: step %d/%d, loss %.4f, %s",
                self._name, metrics["step"], self._bar.total, metrics["loss"], speed,
            )  # fmt: skip

    def close(self) -> None:
        """Flush everything."""
        write_to_textfile(str(self._textfile), self._registry)
        self._bar.close()
        self._board.close()
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._lines.close()
        if self._server:
            self._server.shutdown()
        if self._progress:
            self._progress.close()


@contextmanager
def open_meters(
    folder: Path | None, *, name: str, work: Work, step: int, metrics_port: int | None = None
) -> Iterator[Meters | None]:
    """Open meters for the length of the block; None for a process that does not write."""
    if folder is None:
        yield None
        return
    meters = Meters(folder, name=name, work=work, step=step, metrics_port=metrics_port)
    try:
        yield meters
    finally:
        meters.close()


def read_metrics(path: Path) -> list[StepMetrics]:
    """Return the steps of a metrics.jsonl; a line cut short by a crash is left out."""
    if not path.is_file():
        return []
    steps: list[StepMetrics] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            steps.append(json.loads(line))
        except ValueError:
            continue
    return steps


def cut_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and a line cut short, from a metrics.jsonl."""
    kept = [metrics for metrics in read_metrics(path) if metrics["step"] <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(metrics) + "\n" for metrics in kept), encoding="utf-8")
    partial.replace(path)


def final_loss(steps: list[StepMetrics]) -> float | None:
    """Return the mean loss over the last tenth of the steps, weighted by targets."""
    tail = steps[-math.ceil(len(steps) / 10) :] if steps else []
    num_targets = sum(metrics["num_targets"] for metrics in tail)
    if not num_targets:
        return None
    return sum(metrics["loss"] * metrics["num_targets"] for metrics in tail) / num_targets


class _Server:
    """A running metrics endpoint."""

    def __init__(self, port: int, registry: CollectorRegistry) -> None:
        try:
            self._server, self._thread = start_http_server(
                port, addr="127.0.0.1", registry=registry
            )
        except OSError as exc:
            raise ConfigError(
                f"training.metrics_port = {port}: {exc.strerror}; choose a free port or 0"
            ) from None
        _log.info("metrics at http://127.0.0.1:%d/metrics", self._server.server_port)

    def shutdown(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _serve(port: int | None, registry: CollectorRegistry) -> _Server | None:
    return None if port is None else _Server(port, registry)
