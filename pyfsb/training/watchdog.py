# SPDX-License-Identifier: Apache-2.0
"""Ends a rank that hangs, with the stacks of all ranks in the log, so that the gang starts again.

A thread of each rank looks whether the loop has beaten lately. When it has not for
`training.hang_timeout_seconds` (the first step may take three times as long: files come, kernels
are compiled), it writes the Python stacks of all threads to stderr and to
`stacks/rank-R.txt` in the training's folder, and calls the other ranks through the store of
torchrun; they write theirs at once, whoever they wait for. A moment later each ends with 129, which
asks a PyTorchJob for another try, even when its main thread is stuck in C. When something holds
the interpreter's lock for as long, no thread of ours runs: then faulthandler's own, armed anew at
each look, writes to stderr and ends the process.

A rank whose block ends with an error calls too, so that the others end within seconds and do not
wait out the process group's half hour; so does a store that is gone. Never imports torch at the
top; the store is `distributed.open_alarm`'s.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from pyfsb.errors import EXIT_LOST_PEER
from pyfsb.training.launcher import leave_end

STACKS_FOLDER: Final = "stacks"
FIRST_STEP_FACTOR: Final = 3.0
_LOOKS: Final = 20
"""Looks in one time-out."""
_LONGEST_LOOK_SECONDS: Final = 5.0
_NUM_LOST_LOOKS: Final = 6
"""Looks in a row at which the store does not answer before it counts as gone."""
_STDERR: Final = 2
"""Its number: faulthandler writes without Python's help."""
_log = logging.getLogger(__name__)


class Alarm(Protocol):
    """What all ranks hear."""

    def call(self, text: str) -> None:
        """Tell all ranks; the first text stays."""

    def heard(self) -> str | None:
        """Return what a rank told, or None.

        Raises:
            OSError: Nobody can be heard any more.
        """


class Watchdog:
    """Watches one rank from `beat` to `beat`; a context manager."""

    def __init__(
        self,
        timeout_seconds: float | None,
        folder: Path,
        *,
        alarm: Alarm | None = None,
        end: Callable[[str], None] | None = None,
    ) -> None:
        """Start to watch.

        Args:
            timeout_seconds: Time without a beat after which the rank is ended. None: nothing is
                watched but the other ranks' calls.
            folder: The training's folder; `stacks/` is made in it.
            alarm: How ranks hear each other. None takes torchrun's store where there is one.
            end: Ends this process; it is told why.
        """
        self._timeout_seconds = timeout_seconds
        self._path = folder / STACKS_FOLDER / f"rank-{os.environ.get('RANK', '0')}.txt"
        self._alarm = alarm or _open_alarm()
        self._end = end or _end_process
        self._step: int | None = None
        self._beat_at = time.monotonic()
        self._num_lost = 0
        self._closed = threading.Event()
        self._interval_seconds = _LONGEST_LOOK_SECONDS
        if timeout_seconds is not None:
            self._interval_seconds = min(_LONGEST_LOOK_SECONDS, timeout_seconds / _LOOKS)
        self._arm()
        self._thread = threading.Thread(target=self._watch, name="fsb-watchdog", daemon=True)
        self._thread.start()

    def beat(self, step: int) -> None:
        """Say that the loop goes on; `step` is for the message."""
        self._step = step
        self._beat_at = time.monotonic()

    def close(self, *, is_failed: bool = False) -> None:
        """Stop watching.

        Args:
            is_failed: This rank ends with an error: the others need not wait for it.
        """
        self._closed.set()
        self._thread.join(2 * _LONGEST_LOOK_SECONDS)
        if self._timeout_seconds is not None:
            faulthandler.cancel_dump_traceback_later()
        if is_failed and self._alarm:
            with contextlib.suppress(OSError):
                self._alarm.call(f"rank {os.environ.get('RANK', '0')} ended with an error")

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(is_failed=error is not None)

    def _watch(self) -> None:
        while not self._closed.wait(self._interval_seconds):
            self._arm()
            reason = self._own_trouble()
            if reason and self._alarm:
                with contextlib.suppress(OSError):
                    self._alarm.call(reason)
            reason = reason or self._others_trouble()
            if reason:
                self._give_up(reason)
                return

    def _arm(self) -> None:
        """Have faulthandler end the process when this thread does not run for that long."""
        if self._timeout_seconds is not None:
            faulthandler.dump_traceback_later(
                self._timeout_seconds + _LONGEST_LOOK_SECONDS, exit=True, file=_STDERR
            )

    def _own_trouble(self) -> str | None:
        if self._timeout_seconds is None:
            return None
        factor = FIRST_STEP_FACTOR if self._step is None else 1.0
        silent_seconds = time.monotonic() - self._beat_at
        if silent_seconds <= factor * self._timeout_seconds:
            return None
        place = "its first step" if self._step is None else f"step {self._step}"
        return (
            f"rank {os.environ.get('RANK', '0')} has not gone on for {silent_seconds:.0f} s after "
            f"{place} (training.hang_timeout_seconds = {self._timeout_seconds:g})"
        )

    def _others_trouble(self) -> str | None:
        if self._alarm is None:
            return None
        try:
            found = self._alarm.heard()
        except OSError as exc:
            self._num_lost += 1
            return f"the ranks' store is gone: {exc}" if self._num_lost >= _NUM_LOST_LOOKS else None
        self._num_lost = 0
        return found

    def _give_up(self, reason: str) -> None:
        """Write the stacks, give the other ranks time to write theirs, end."""
        _log.error("%s; the stacks of this rank follow", reason)
        self._dump()
        # Whoever ends first takes the others' connections away, and with them what they wait for.
        if not self._closed.wait(4 * self._interval_seconds):
            self._end(f"{reason}; the stacks are in the log and in {self._path}")

    def _dump(self) -> None:
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file=file, all_threads=True)


def _end_process(reason: str) -> None:
    """End at once, whatever the other threads hold."""
    leave_end(EXIT_LOST_PEER, f"StuckRankError: {reason}")
    os._exit(EXIT_LOST_PEER)


def _open_alarm() -> Alarm | None:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "MASTER_ADDR" not in os.environ:
        return None
    from pyfsb.training.distributed import open_alarm

    return open_alarm()
