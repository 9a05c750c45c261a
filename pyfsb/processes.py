# SPDX-License-Identifier: Apache-2.0
"""Starting, stopping and outliving processes: what every stage and engine needs of the system.

A child dies with its parent (also on `kill -9`), a stop signal reaches the child that does the
work, and a process ends with the exit code that its error asks for.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from pyfsb.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    FsbError,
    StorageError,
)
from pyfsb.logs import configure_logging

_PR_SET_PDEATHSIG = 1
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_log = logging.getLogger(__name__)


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent ends, however it ends.

    `torchrun` gives its workers sessions of their own, so killing the process group of a run
    would leave them writing. Only Linux can; elsewhere this does nothing.

    Args:
        parent: Process id of the parent, when it may have ended before this call; None takes the
            present one.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Say whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class StopRequest:
    """Remembers SIGTERM and SIGINT, so that a loop can finish its step and save."""

    def __init__(self) -> None:
        """Start without a request."""
        self.signal_number: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take over both signals for the length of the block (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in _STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = number


_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a child process ended."""

    code: int
    """Its exit code; 128 + n when signal n ended it."""
    signal_number: int | None
    """The stop signal that this process was sent and passed on, if any."""


def start_child(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command that dies with this process and takes no signal from the terminal.

    Its standard output goes to this process's standard error: results are printed by one process.
    """
    return subprocess.Popen(  # noqa: S603 - a list built by us, no shell
        list(command),
        env={**os.environ, **(environment or {})},
        stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    grace_seconds: float = 60.0,
) -> ChildEnd:
    """Run a command to its end.

    The first SIGTERM or SIGINT sent to this process is passed on as SIGTERM; the child is killed
    when it has not ended `grace_seconds` later, or at the second signal.
    """
    child = start_child(command, environment=environment)
    with forwarding(child, grace_seconds=grace_seconds) as stop:
        code = child.wait()
    return ChildEnd(code=128 - code if code < 0 else code, signal_number=stop.signal_number)


@contextlib.contextmanager
def forwarding(child: subprocess.Popen[bytes], *, grace_seconds: float) -> Iterator[StopRequest]:
    """Pass stop signals on to a child for the length of the block; it is killed on an error."""
    stop = StopRequest()
    timers: list[threading.Timer] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if stop.signal_number is not None:
            child.kill()
            return
        stop.signal_number = number
        if child.poll() is None:
            child.terminate()
            timers.append(threading.Timer(grace_seconds, child.kill))
            timers[0].start()

    is_main = threading.current_thread() is threading.main_thread()
    numbers = _STOP_SIGNALS if is_main else ()
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield stop
    except BaseException:
        child.kill()
        raise
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def report_text(text: str) -> None:
    """Write an error to stderr and to `FSB_TERMINATION_LOG` (in a pod: the termination message)."""
    sys.stderr.write(f"error: {text}\n")
    leave_message(text)


def leave_message(text: str) -> None:
    """Write a pod's last word to `FSB_TERMINATION_LOG`, if that is set."""
    path = os.environ.get("FSB_TERMINATION_LOG")
    if path:
        with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
            file.write(text)


def report_error(error: FsbError) -> None:
    """Report an error in one line."""
    report_text(f"{type(error).__name__}: {error}")


def run_stage_main(
    main: Callable[[], int], *, report: Callable[[FsbError], None] = report_error
) -> int:
    """Run a stage's `main` as a process edge: configured logs, one line for an error, its code.

    Args:
        main: Does the work and returns an exit code.
        report: Tells an error; a rank leaves that to its launcher.

    Returns:
        The code for `sys.exit`: the error's own, 130 after Ctrl-C, 143 after SIGTERM.
    """

    def on_terminate(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    try:
        configure_logging()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)
        return main()
    except FsbError as exc:
        report(exc)
        return exc.exit_code
    except BrokenPipeError:
        return EXIT_FAILURE
    except OSError as exc:
        if exc.errno not in _DISK_ERRORS:
            raise
        place = f" at {exc.filename}" if exc.filename else ""
        error = StorageError(
            f"{exc.strerror}{place}; free some space or choose another output, then run the same "
            "command again"
        )
        report(error)
        return error.exit_code
    except KeyboardInterrupt:
        _log.warning("interrupted; the same command continues from what is complete")
        return EXIT_INTERRUPTED
