# SPDX-License-Identifier: Apache-2.0
"""Where figures of a training go besides metrics.jsonl: Prometheus, TensorBoard, MLflow.

`meters` gives them figures by name. None of them slows a step down: Prometheus computes when it is
asked or every five seconds, TensorBoard gets every step of the first hundred and then one a second,
MLflow is written to by a thread of its own, which never fails a training.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from pyfsb.errors import ConfigError

PROMETHEUS_NAME: Final = "metrics.prom"
TENSORBOARD_FOLDER: Final = "tensorboard"
_NUM_EARLY_STEPS: Final = 100
_BOARD_SECONDS: Final = 1.0
_MLFLOW_SECONDS: Final = 5.0
_NUM_WAITING: Final = 10_000
_GAUGES: Final = {
    "step": "Optimizer steps taken",
    "num_steps": "Optimizer steps in all",
    "loss": "Mean loss of the step in nats per target",
    "validation_loss": "Newest loss on held-out samples in nats per target",
    "gradient_norm": "Global norm of the gradients before clipping",
    "learning_rate": "Learning rate of the step",
    "tokens_per_second": "Tokens of the step over its wall time, padding not counted",
    "samples_per_second": "Samples of the step over its wall time",
    "step_seconds_p50": "Median wall time of the recent steps",
    "step_seconds_p99": "Wall time that 99 % of the recent steps do not exceed",
    "data_share": "Share of the recent time spent waiting for samples",
    "communication_share": "Share of the recent time spent in collectives",
    "checkpoint_share": "Share of the recent time in which training stood still to save",
    "mfu": "Model FLOPs of the step over the devices' 16-bit peak",
    "memory_bytes": "Resident memory of the first rank",
    "device_bytes": "Most memory of the first rank's device in use so far",
    "num_skipped_steps": "Steps of this attempt whose gradients were not used",
    "goodput": "Time in steps that count over the time since the first start",
    "device_seconds": "Devices times the time they were held, over all attempts",
    "kwh": "Energy by the stated power",
    "kg_co2e": "Emissions by the stated power and grid",
    "cost": "Cost by the stated price",
}
_log = logging.getLogger(__name__)
Figures = Mapping[str, float | None]
"""Figures by the names of `_GAUGES`; None is left out."""


class Prometheus:
    """A textfile, and an endpoint where one is asked for; figures are read when they are needed."""

    def __init__(
        self, path: Path, *, run: str, read: Callable[[], Figures], port: int | None
    ) -> None:
        """Open the outputs.

        Args:
            path: The textfile.
            run: Label of every series.
            read: Returns the present figures; called from any thread.
            port: Of the endpoint on 127.0.0.1, 0 for any. None opens none.

        Raises:
            ConfigError: The port cannot be had.
        """
        self._path, self._run, self._read = path, run, read
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._server = None if port is None else _Server(port, self._registry)

    @property
    def port(self) -> int | None:
        """Port of the endpoint."""
        return self._server.port if self._server else None

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        figures = self._read()
        for key, text in _GAUGES.items():
            value = figures.get(key)
            if value is not None:
                family = GaugeMetricFamily(f"fsb_training_{key}", text, labels=["run"])
                family.add_metric([self._run], value)
                yield family

    def describe(self) -> tuple[Metric, ...]:
        """Say nothing about the gauges before there are figures."""
        return ()

    def write(self) -> None:
        """Write the textfile anew."""
        write_to_textfile(str(self._path), self._registry)

    def close(self) -> None:
        """Write the last figures and stop answering."""
        self.write()
        if self._server:
            self._server.shutdown()


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
        self.port: int = self._server.server_port
        _log.info("metrics at http://127.0.0.1:%d/metrics", self.port)

    def shutdown(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class TensorBoard:
    """Event files; one event a step holds all its figures."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Open a file; what earlier ones say about steps after `step` is to be forgotten."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder), flush_secs=10)
        self._num_written = 0
        self._next = 0.0
        self._waiting: tuple[Figures, int] | None = None
        self.forget_after(step)

    def forget_after(self, step: int) -> None:
        """Tell readers to drop what was written about later steps."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._waiting = None
        session = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=step + 1, session_log=session))

    def add(self, figures: Figures, step: int) -> None:
        """Write a step, or keep it in case no later one comes."""
        now = time.monotonic()
        if self._num_written >= _NUM_EARLY_STEPS and now < self._next:
            self._waiting = (figures, step)
            return
        self._next = now + _BOARD_SECONDS
        self._write(figures, step)

    def close(self) -> None:
        """Write the newest step and close the file."""
        if self._waiting:
            self._write(*self._waiting)
        self._writer.close()

    def _write(self, figures: Figures, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._waiting = None
        self._num_written += 1
        values = [
            Summary.Value(tag=key, simple_value=value)
            for key, value in figures.items()
            if value is not None
        ]
        self._writer.add_event(
            Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        )


class Mlflow:
    """A run on an MLflow server, or in a folder, that a continued training goes on with.

    MLflow cannot forget: steps that were taken again after a crash are there twice.
    """

    def __init__(self, uri: str, *, name: str, run_id: str | None) -> None:
        """Connect.

        Args:
            uri: `training.mlflow_uri`.
            name: Name of experiment and run.
            run_id: Of the training's earlier attempts.

        Raises:
            ConfigError: mlflow is not installed, or the URI is refused.
        """
        try:
            import mlflow
            from mlflow.entities import Metric as Point
        except ImportError:
            raise ConfigError(
                f"training.mlflow_uri = {uri!r} needs mlflow: pip install mlflow-skinny"
            ) from None
        self._make_point: Callable[..., Any] = Point
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            self.run_id = run_id or self._create(name)
        except Exception as exc:  # mlflow raises whatever its transport raises
            raise ConfigError(f"training.mlflow_uri = {uri!r} cannot be used: {exc}") from None
        self._points: queue.Queue[Any] = queue.Queue(_NUM_WAITING)
        self._closed = threading.Event()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="fsb-mlflow", daemon=True)
        self._thread.start()

    def add(self, figures: Figures, step: int) -> None:
        """Leave a step's figures for the thread; the oldest are lost when it cannot keep up."""
        stamp = int(time.time() * 1000)
        for key, value in figures.items():
            if value is None or not math.isfinite(value):
                continue
            if self._points.full():
                self._points.get_nowait()
            self._points.put_nowait(self._make_point(key, value, stamp, step))

    def close(self) -> None:
        """Send what waits, if that takes no longer than a moment."""
        self._closed.set()
        self._thread.join(2 * _MLFLOW_SECONDS)

    def _create(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        return str(self._client.create_run(number, run_name=name).info.run_id)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._closed.wait(_MLFLOW_SECONDS)
            while not self._points.empty():
                self._send(
                    [self._points.get_nowait() for _ in range(min(1000, self._points.qsize()))]
                )
        self._call(lambda: self._client.set_terminated(self.run_id))

    def _send(self, points: list[Any]) -> None:
        self._call(lambda: self._client.log_batch(self.run_id, metrics=points))

    def _call(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception as exc:  # whatever it is, the training goes on
            if not self._has_failed:
                _log.warning("MLflow does not take the metrics: %s", exc)
            self._has_failed = True
