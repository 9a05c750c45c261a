# SPDX-License-Identifier: Apache-2.0
"""Where the wall time of a step goes: data, compute, communication, saving, validation.

The loop (`loop`) says which part begins; collectives say so themselves: `time_collectives` puts a
wrapper around those of `torch.distributed`, which DeepSpeed calls too. Parts exclude each other: a
collective inside "compute" counts as communication only. How communication is measured:

- gloo (CPU): host time inside a collective, or in `wait()` of one that was started earlier. A rank
  that is faster than its peers waits there, so slow peers show as communication.
- backends that run on the device (NCCL): the durations that the backend itself notes with events
  on its stream, hidden behind compute or not; the host's time says nothing there.

Never imports torch at the top: the clock is used by tests and tools without it.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Part: TypeAlias = Literal["data", "compute", "communication", "checkpoint", "validation"]
_COLLECTIVES: Final = (
    "all_reduce", "reduce", "broadcast", "all_gather", "all_gather_into_tensor", "reduce_scatter",
    "reduce_scatter_tensor", "all_to_all", "all_to_all_single", "barrier", "all_reduce_coalesced",
    "gather", "scatter", "all_gather_object", "broadcast_object_list",
)  # fmt: skip
_BESIDE_THE_STEP: Final = ("checkpoint", "validation")
_WITHOUT_HANDLE: Final = ("all_gather_object", "broadcast_object_list")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Wall time since the last `StepTimer.take`, by part; what is in none of them is the rest."""

    seconds: float
    """Of the step: all of it but saving and validation."""
    data_seconds: float
    """Waiting for samples."""
    compute_seconds: float
    """Forward, backward, optimizer; what "compute" holds without its collectives."""
    communication_seconds: float
    """Collectives; see the module for what that means."""
    checkpoint_seconds: float
    """Training stood still for a saved state."""
    validation_seconds: float
    """Measuring on held-out samples."""


class StepTimer:
    """Splits the time of one thread into parts; a nested part pauses the one around it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start now; collectives report to the timer made last, see `time_collectives`.

        Args:
            clock: Seconds that only grow.
        """
        self._clock = clock
        self._thread = threading.get_ident()
        self._started = self._mark = clock()
        self._stack: list[Part | None] = [None]
        self._seconds: dict[Part | None, float] = {}
        self._works: list[Any] = []
        _listener.timer = self

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count the time of the block as this part.

        What happens while saving or validating counts as that; other threads count nothing.
        """
        if threading.get_ident() != self._thread:
            yield
            return
        outer = self._stack[-1]
        if outer in _BESIDE_THE_STEP:
            name = outer
        self._turn()
        self._stack.append(name)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def watch(self, work: Any) -> None:
        """Ask a collective on the device for its duration when the step is over."""
        if self._stack[-1] not in _BESIDE_THE_STEP:
            self._works.append(work)

    def take(self) -> Parts:
        """Return the time since the last call, or since the start, and begin again."""
        self._turn()
        found, self._seconds = self._seconds, {}
        elapsed, self._started = self._mark - self._started, self._mark
        on_device = self._take_durations()
        checkpoint, validation = found.get("checkpoint", 0.0), found.get("validation", 0.0)
        return Parts(
            seconds=elapsed - checkpoint - validation,
            data_seconds=found.get("data", 0.0),
            compute_seconds=found.get("compute", 0.0),
            communication_seconds=found.get("communication", 0.0) + on_device,
            checkpoint_seconds=checkpoint,
            validation_seconds=validation,
        )

    def _turn(self) -> None:
        """Give the time since the last change to the part that was on."""
        now = self._clock()
        name = self._stack[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._mark
        self._mark = now

    def _take_durations(self) -> float:
        done = [work for work in self._works if work.is_completed()]
        self._works = [work for work in self._works if not work.is_completed()]
        return sum(float(work._get_duration()) for work in done) / 1000  # it speaks milliseconds


class _Listener:
    """The timer that collectives report to."""

    timer: StepTimer | None = None


_listener = _Listener()


class _TimedWork:
    """A collective under way whose `wait` counts as communication."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def wait(self, *arguments: Any, **options: Any) -> Any:
        """Wait as the work does."""
        if _listener.timer is None:
            return self._work.wait(*arguments, **options)
        with _listener.timer.part("communication"):
            return self._work.wait(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def time_collectives(*, on_device: bool) -> None:
    """Wrap the collectives of `torch.distributed` for the rest of this process.

    Called before DeepSpeed is initialised, because it keeps some of them for itself then.

    Args:
        on_device: The backend runs on the device and notes durations (NCCL with timing on).
    """
    from torch import distributed

    wrap = _time_on_device if on_device else _time_on_host
    for name in _COLLECTIVES:
        function = getattr(distributed, name)
        if not getattr(function, "_is_timed", False):
            setattr(distributed, name, wrap(function, has_handle=name not in _WITHOUT_HANDLE))


def _time_on_host(function: Callable[..., Any], *, has_handle: bool) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        timer = _listener.timer
        if timer is None:
            return function(*arguments, **options)
        with timer.part("communication"):
            found = function(*arguments, **options)
        return _TimedWork(found) if has_handle and found is not None else found

    timed._is_timed = True  # type: ignore[attr-defined]
    return timed


def _time_on_device(function: Callable[..., Any], *, has_handle: bool) -> Callable[..., Any]:
    """Let the backend's own events tell; a blocking call becomes one that is waited for."""
    if not has_handle:
        return _time_on_host(function, has_handle=False)

    @functools.wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        timer, is_async = _listener.timer, bool(options.get("async_op", False))
        if timer is None:
            return function(*arguments, **options)
        work = function(*arguments, **{**options, "async_op": True})
        if work is None:  # coalesced with others, or this rank has no part in it
            return None
        timer.watch(work)
        if is_async:
            return work
        work.wait()
        return None

    timed._is_timed = True  # type: ignore[attr-defined]
    return timed
