# SPDX-License-Identifier: Apache-2.0
"""The rank's side of its writer process: start it, hand it states, hear what became of them.

Called by `checkpoint`. Reports are read by a thread of their own, so warnings reach the log when
they arise; a failure is kept until somebody asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any, Final

from pyfsb import errors
from pyfsb.errors import FsbError, StorageError
from pyfsb.training.writer import Save, Settings

_END_SECONDS: Final = 10.0
_log = logging.getLogger(__name__)


class WriterProcess:
    """A writer and what it has reported."""

    def __init__(self, settings: Settings) -> None:
        """Start the process; it is ready within a fraction of a second.

        Args:
            settings: What it is told.
        """
        text = json.dumps(dataclasses.asdict(settings))
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "pyfsb.training.writer", text],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[settings.file_descriptor],
            start_new_session=True,  # a stop is the rank's to hear: it still has states to write
        )  # fmt: skip
        self._news = threading.Condition()
        self._num_unwritten = 0
        self._num_unpublished = 0
        self._failure: FsbError | None = None
        self._stumble: str | None = None
        reports = self._process.stdout
        assert reports is not None
        self._is_closing = False
        self._listener = threading.Thread(target=self._listen, args=(reports,), daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def save(self, save: Save) -> None:
        """Hand over a state; its memory must not change until `wait_until_written` returns."""
        with self._news:
            self._num_unwritten += 1
            self._num_unpublished += 1
        commands = self._process.stdin
        assert commands is not None
        with contextlib.suppress(BrokenPipeError):  # the listener has noticed, or will
            commands.write(json.dumps(dataclasses.asdict(save)).encode() + b"\n")
            commands.flush()

    def wait_until_written(self) -> FsbError | None:
        """Wait until memory may change again; returns the first failure so far, if any."""
        with self._news:
            self._news.wait_for(lambda: self._failure or not self._num_unwritten)
            return self._failure

    def wait_until_published(self, patience_seconds: float) -> FsbError | None:
        """Wait until every state is where it belongs; returns what prevents it.

        Args:
            patience_seconds: How long a store may go on failing.
        """
        with self._news:
            is_done = self._wait_for(lambda: not self._num_unpublished, patience_seconds)
            if self._failure or is_done:
                return self._failure
            reason = self._stumble or "other ranks' files are not there"
            return StorageError(
                f"{self._num_unpublished} saved states are not complete after "
                f"{patience_seconds:g} s: {reason}"
            )

    def close(self, *, is_failed: bool) -> None:
        """End the process; after a failure at once, with whatever it was doing undone."""
        self._is_closing = True
        if is_failed:
            self._process.kill()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()

    def _wait_for(self, is_true: Callable[[], bool], patience_seconds: float) -> bool:
        """Wait for progress; patience begins anew with each state that is published."""
        before, deadline = self._num_unpublished, time.monotonic() + patience_seconds
        while not (self._failure or is_true()):
            if self._num_unpublished != before:
                before, deadline = self._num_unpublished, time.monotonic() + patience_seconds
            if time.monotonic() > deadline:
                return False
            self._news.wait(min(1.0, patience_seconds))
        return True

    def _listen(self, reports: IO[bytes]) -> None:
        with reports:
            for line in reports:
                with self._news:
                    self._take(json.loads(line))
                    self._news.notify_all()
        code = self._process.wait()
        with self._news:
            if not (self._failure or self._is_closing):
                self._failure = StorageError(
                    f"the process that writes saved states ended with {code}; "
                    f"{self._num_unpublished} were on their way"
                )
            self._news.notify_all()

    def _take(self, report: dict[str, Any]) -> None:
        match report["event"]:
            case "written":
                self._num_unwritten -= 1
            case "published":
                self._num_unpublished -= 1
                self._stumble = None
            case "failed":
                kind = getattr(errors, report["error"], StorageError)
                self._failure = self._failure or kind(report["text"])
            case "stumbled":
                if self._stumble is None:
                    _log.warning("%s; training goes on, the upload is tried again", report["text"])
                self._stumble = report["text"]
            case "log":
                _log.warning("%s", report["text"])
