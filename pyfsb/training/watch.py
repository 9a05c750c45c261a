# SPDX-License-Identifier: Apache-2.0
"""Follows a training from outside, by the files that its meters leave: `fsb train watch`.

On a disk only what was added to metrics.jsonl is read. On S3 the file comes anew when it has
changed, which is when a state was saved: in between the training looks still. Never imports torch,
never writes.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pyfsb import storage
from pyfsb.config import Stage, load_spec
from pyfsb.errors import ConfigError, DataError
from pyfsb.records import RECORD_NAME
from pyfsb.schema import Json
from pyfsb.training.metrics import METRICS_NAME, StepMetrics, iter_metrics
from pyfsb.training.state_files import FOLDER, step_of
from pyfsb.training.state_folder import local_states, stored_states
from pyfsb.training.usage import ATTEMPTS_NAME, Attempts, Totals, parse_attempts
from pyfsb.training.window import Window

_SPEC_ENDS: Final = (".yaml", ".yml")
_NUM_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where a training stands; shares, speeds and step times are of its last 256 steps."""

    name: str
    """Name of the run; its folder's before it is known."""
    uri: str
    """The training's folder."""
    step: int
    """Optimizer steps taken."""
    num_steps: int | None
    """Steps in all."""
    loss: float | None
    """Of the last step, in nats per target."""
    validation_loss: float | None
    """Newest one."""
    gradient_norm: float | None
    """Of the last step."""
    learning_rate: float | None
    """Of the last step."""
    tokens_per_second: float
    """Tokens over the time in steps."""
    samples_per_second: float | None
    """Of the last step."""
    step_seconds_p50: float | None
    """Median step."""
    step_seconds_p99: float | None
    """What 99 % of the steps do not exceed."""
    data_share: float | None
    """Share of the time spent waiting for samples."""
    communication_share: float | None
    """Share of the time spent in collectives."""
    checkpoint_share: float | None
    """Share of the time in which training stood still to save."""
    mfu: float | None
    """Model FLOPs over the devices' peak."""
    memory_bytes: int | None
    """Resident memory of the first rank."""
    device_bytes: int | None
    """Most memory of its device in use so far."""
    num_skipped_steps: int
    """Steps whose gradients were not used."""
    goodput: float | None
    """Time in steps that count over the time since the first start."""
    num_attempts: int
    """Times it was started."""
    checkpoint_step: int | None
    """Step of the newest complete state."""
    eta_seconds: float | None
    """To the last step, by the median step."""
    silent_seconds: float | None
    """Time since the last step that is known here. None: it has ended, or not begun."""
    is_over: bool
    """It was ended in good order: complete, stopped or failed; it may be continued."""
    is_complete: bool
    """Its record is written."""

    def to_json(self) -> Json:
        """Return plain values."""
        return asdict(self)


def find_training(place: str) -> str:
    """Return the folder of a training.

    Args:
        place: That folder, the output of a run, or a run spec.

    Raises:
        ConfigError: Nothing or more than one is there; names them.
    """
    if place.endswith(_SPEC_ENDS):
        return load_spec(place).output_of(Stage.TRAINING)
    uri = storage.absolute(place)
    for folder in (uri, storage.join(uri, "training")):
        if _has_meters(folder):
            return folder
    found = [
        file.path.rpartition("/")[0]
        for file in storage.find_files(uri, f"evaluation/*/*/{METRICS_NAME}")
    ]
    if len(found) == 1:
        return storage.join(uri, found[0])
    if found:
        shown = ", ".join(found[:_NUM_SHOWN])
        raise ConfigError(f"{place} holds several trainings ({shown}); name one of their folders")
    raise ConfigError(
        f"no training has begun in {place}: there is no {METRICS_NAME} in it, nor in its folder "
        "training; give a run's output, a training's folder or a spec"
    )


class Follower:
    """Reads what is new, whenever it is asked."""

    def __init__(self, uri: str, *, clock: Callable[[], float] = time.time) -> None:
        """Follow a training.

        Args:
            uri: Its folder.
            clock: Unix time.
        """
        self.uri = uri
        self._clock = clock
        self._source = _RemoteLines(uri) if storage.is_s3(uri) else _LocalLines(uri)
        self._forget()

    def poll(self) -> View:
        """Return where the training stands now.

        Raises:
            StorageError: The store failed.
        """
        lines, is_anew = self._source.read()
        if is_anew:
            self._forget()
        for metrics in iter_metrics(lines):
            self._add(metrics)
        return self._look()

    @property
    def losses(self) -> array[float]:
        """Loss of every step; NaN where it was no number."""
        return self._losses

    def _forget(self) -> None:
        self._losses = array("d")
        self._totals, self._window = Totals(), Window()
        self._last: StepMetrics | None = None
        self._validation_loss: float | None = None
        self._num_skipped = 0

    def _add(self, metrics: StepMetrics) -> None:
        self._last = metrics
        self._losses.append(metrics["loss"])
        self._totals.add(metrics)
        self._window.steps.append(metrics)
        self._num_skipped += bool(metrics.get("is_skipped"))
        measured = metrics.get("validation_loss")
        if measured is not None:
            self._validation_loss = measured

    def _look(self) -> View:
        last: Json = dict(self._last or {})
        attempts = self._read_attempts()
        is_complete = storage.exists(storage.join(self.uri, RECORD_NAME))
        is_over = is_complete or (attempts is not None and attempts.has_ended)
        window = self._window
        recent = Totals(window.steps)
        step = int(last.get("step", 0))
        num_steps = attempts.num_steps if attempts else None
        median = window.seconds_at(0.5)
        return View(
            name=attempts.name if attempts else storage.absolute(self.uri).rpartition("/")[2],
            uri=self.uri,
            step=step,
            num_steps=num_steps,
            loss=last.get("loss"),
            validation_loss=self._validation_loss,
            gradient_norm=last.get("gradient_norm"),
            learning_rate=last.get("learning_rate"),
            tokens_per_second=recent.tokens_per_second,
            samples_per_second=last.get("samples_per_second"),
            step_seconds_p50=median,
            step_seconds_p99=window.seconds_at(0.99),
            data_share=window.data_share,
            communication_share=window.communication_share,
            checkpoint_share=window.checkpoint_share,
            mfu=recent.mfu,
            memory_bytes=last.get("memory_bytes"),
            device_bytes=last.get("device_bytes"),
            num_skipped_steps=self._num_skipped,
            goodput=self._goodput(attempts, is_over=is_over),
            num_attempts=len(attempts.attempts) if attempts else 0,
            checkpoint_step=self._newest_state(),
            eta_seconds=None if not num_steps or median is None else (num_steps - step) * median,
            silent_seconds=None if is_over or "at" not in last else self._clock() - last["at"],
            is_over=is_over,
            is_complete=is_complete,
        )

    def _goodput(self, attempts: Attempts | None, *, is_over: bool) -> float | None:
        if attempts is None or not attempts.attempts:
            return None
        end = attempts.attempts[-1].seen_at if is_over else self._clock()
        return self._totals.goodput(end - attempts.attempts[0].started_at)

    def _read_attempts(self) -> Attempts | None:
        uri = storage.join(self.uri, ATTEMPTS_NAME)
        try:
            text = storage.read_text(uri)
        except DataError:
            return None
        return parse_attempts(text, source=uri)

    def _newest_state(self) -> int | None:
        folder = storage.join(self.uri, FOLDER)
        names = stored_states(folder) if storage.is_s3(folder) else local_states(Path(folder))
        return step_of(names[0]) if names else None


class _LocalLines:
    """What was added to a file; all of it when it is another one."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder, METRICS_NAME)
        self._file = 0
        self._offset = 0

    def read(self) -> tuple[list[str], bool]:
        """Return the whole lines that are new, and whether they begin from the first one."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                is_anew = status.st_ino != self._file or status.st_size < self._offset
                if is_anew:
                    self._file, self._offset = status.st_ino, 0
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return [], True
        whole = text[: text.rfind(b"\n") + 1]  # a line may be half written
        self._offset += len(whole)
        return whole.decode(errors="replace").splitlines(), is_anew


class _RemoteLines:
    """All lines of an object when it has changed."""

    def __init__(self, folder: str) -> None:
        self._uri = storage.join(folder, METRICS_NAME)
        self._version: str | None = None

    def read(self) -> tuple[list[str], bool]:
        """Return all lines and True, or nothing and False when they are as before."""
        try:
            version = storage.version(self._uri)
            if version == self._version:
                return [], False
            text = storage.read_text(self._uri)
        except DataError:
            return [], True
        self._version = version
        return text.splitlines(), True


def _has_meters(folder: str) -> bool:
    return any(storage.exists(storage.join(folder, name)) for name in (METRICS_NAME, ATTEMPTS_NAME))
