# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a run in a cluster: a bar on a terminal, plain lines otherwise; on stderr.

Called with what `cluster_following` tells. Knows no cluster.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pyfsb.engines.cluster_following import Notify
from pyfsb.schema import Json

_LINE_SECONDS: Final = 15.0
"""Between two lines about steps where no bar can be drawn."""
_FIGURES: Final = (
    ("loss", "loss {}"), ("tokens_per_second", "{:,} tokens/s"), ("mfu", "MFU {}"),
    ("eta", "{} left"), ("task", "task {}"), ("restarts", "{} restarts"),
)  # fmt: skip
_log = logging.getLogger(__name__)


def describe_progress(told: Json) -> str:
    """Return step, loss and the like in one line; empty when nothing was reported."""
    parts = [pattern.format(told[key]) for key, pattern in _FIGURES if told.get(key) is not None]
    step, total = told.get("step"), told.get("total_steps")
    if step is not None:
        parts.insert(0, f"step {step:,}" + (f"/{total:,}" if total else ""))
    return ", ".join(parts)


class LineReporter:
    """Logs each change of phase, and now and then how far the work is."""

    def __init__(self) -> None:
        """Start with nothing told."""
        self._phase: tuple[str, str, str] | None = None
        self._last = 0.0

    def __call__(self, told: Json) -> None:
        """Take what was seen."""
        phase = (told["name"], told["phase"], str(told.get("message", "")))
        progress = describe_progress(told)
        if phase != self._phase:
            self._phase = phase
            _log.info("%s", _headline(told))
        elif not progress or time.monotonic() - self._last < _LINE_SECONDS:
            return
        if progress:
            _log.info("%s %s: %s", told["kind"], told["name"], progress)
            self._last = time.monotonic()


class BarReporter:
    """Draws one bar a resource and prints each change of phase above it."""

    def __init__(self, progress: Progress) -> None:
        """Draw on a started display."""
        self._progress = progress
        self._tasks: dict[str, tuple[TaskID, tuple[str, str]]] = {}

    def __call__(self, told: Json) -> None:
        """Take what was seen."""
        name, phase = told["name"], (told["phase"], str(told.get("message", "")))
        if name not in self._tasks:
            task = self._progress.add_task(told["kind"], total=None, figures="")
            self._tasks[name] = (task, ("", ""))
        task, before = self._tasks[name]
        if phase != before:
            self._progress.console.print(_headline(told))
            self._tasks[name] = (task, phase)
        has_ended = told["phase"] in ("Succeeded", "Ready")
        total = told.get("total_steps") or (1 if has_ended else None)
        done = total if has_ended else told.get("step", 0)
        figures = describe_progress(told) or told["phase"]
        self._progress.update(task, completed=done, total=total, figures=figures)


@contextlib.contextmanager
def reporting() -> Iterator[Notify]:
    """Return what shows progress best where this process writes its errors."""
    if not sys.stderr.isatty():
        yield LineReporter()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    console = Console(stderr=True, markup=False, highlight=False)
    with Progress(*columns, console=console) as progress:
        yield BarReporter(progress)


def _headline(told: Json) -> str:
    message = told.get("message")
    text = f"{told['kind']} {told['namespace']}/{told['name']}: {told['phase']}"
    return f"{text} – {message}" if message else text
