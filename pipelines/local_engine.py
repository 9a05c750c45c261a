# SPDX-License-Identifier: Apache-2.0
"""Engine `kfp-local`: the compiled pipeline's own components, run by KFP's local runner.

Keeps what the local engine promises: one run at a time on an output, complete stages are kept and
said to be, and a failed stage's error and exit code become the run's. The same records come out;
only times and the run's folders differ.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from kfp import local
from kfp.dsl.base_component import BaseComponent

from pipelines.end_to_end import end_to_end
from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage
from pyfsb.engines.completion import find_complete, read_spec, record_places
from pyfsb.engines.protocol import RunResult, StageResult
from pyfsb.engines.serve import check_port, end_as_stopped
from pyfsb.errors import EXIT_FAILURE, ConfigError, FsbError
from pyfsb.processes import StopRequest
from pyfsb.schema import to_yaml
from pyfsb.storage.locks import HOLDER_VARIABLE, hold_lock

_TOLD: Final = re.compile(r"\s*(?:error: |pyfsb\.[\w.]+\.)(?P<kind>\w+): (?P<text>.*)")
"""How a stage tells its error, and how Python ends the traceback of a component."""
_STAGE_CODE: Final = re.compile(r"stage \w+ ended with exit code (\d+)")
_log = logging.getLogger(__name__)


class PipelineFailedError(FsbError):
    """A task of the pipeline failed; carries its error and exit code."""

    def __init__(self, words: str, code: int) -> None:
        """Keep the task's exit code as this error's."""
        super().__init__(f"pipeline end-to-end failed: {words}")
        self.exit_code = code  # type: ignore[misc]


def run(spec: RunSpec, result: RunResult, *, keeps_serving: bool) -> None:
    """Run a spec through `end_to_end` with KFP's SubprocessRunner.

    Raises:
        ConfigError: The spec leaves out a stage of the pipeline, asks to keep serving, names a
            port that is taken, or the output holds stages made with other settings.
        NotReadyError: Another run holds the output.
        PipelineFailedError: A task failed; carries its exit code.
        KeyboardInterrupt, SystemExit: This process was told to stop, and the task has.
    """
    if keeps_serving:
        raise ConfigError("--serve: a pipeline's tasks end; use --engine local, or `fsb serve`")
    if len(spec.stages) < 5:
        raise ConfigError(
            "engine kfp-local runs all stages; this spec has only "
            f"{', '.join(spec.stages)} (set data.corpus and evaluation.tasks)"
        )
    with hold_lock(spec.output):
        before = read_spec(spec.output)
        complete = {stage: find_complete(spec, stage, before) for stage in spec.stages}
        if not complete[Stage.SERVING]:
            check_port(spec)
        for stage, done in complete.items():
            if done:
                _log.info("[%s] complete since %s", stage, done.records[0].created_at)
        with _stopping_tasks() as stop:
            failure = _run_pipeline(spec)
        if stop.signal_number is not None:
            end_as_stopped(stop.signal_number)
        result.stages += _finished(spec, complete)
    if failure:
        raise failure


def _run_pipeline(spec: RunSpec) -> PipelineFailedError | None:
    """Run every task; a task finds itself what is complete."""
    started = time.monotonic()
    listener = _Listener()
    with tempfile.TemporaryDirectory(prefix="fsb-kfp-") as root, _lock_lent():
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
        try:
            # KFP prints its tasks' logs.
            with contextlib.redirect_stdout(listener), without_retries(end_to_end):
                end_to_end(spec=to_yaml(spec.to_json()), engine="local")
        except RuntimeError as exc:
            return PipelineFailedError(listener.words or str(exc), listener.code)
    _log.info("pipeline done in %.1f s", time.monotonic() - started)
    return None


@contextlib.contextmanager
def _stopping_tasks() -> Iterator[StopRequest]:
    """Let a task that is told to stop save its work while this process holds the output for it.

    KFP's local runner would leave the task alone at Ctrl-C, and wait for its end at SIGTERM.
    """
    stop = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        tasks = _tasks()
        if not tasks:
            end_as_stopped(number)
        # A terminal sends Ctrl-C to the tasks itself, and they drop their work at a second signal.
        if number == signal.SIGTERM or stop.signal_number is not None:
            for task in tasks:
                os.kill(task, signal.SIGTERM)
        stop.signal_number = number

    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if is_main else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tasks() -> list[int]:
    """Return the processes that run components, the children of KFP's shells; Linux only."""
    return [task for shell in _children(os.getpid()) for task in _children(shell)]


def _children(process: int) -> list[int]:
    with contextlib.suppress(OSError):  # it may end meanwhile
        paths = list(Path(f"/proc/{process}/task").glob("*/children"))
        return [int(child) for path in paths for child in path.read_text().split()]
    return []


@contextlib.contextmanager
def without_retries(pipeline: BaseComponent) -> Iterator[None]:
    """Let a failed task end the run: tries are for launchers that a cluster has lost."""
    implementation = pipeline.component_spec.implementation
    before = implementation.graph
    implementation.graph = copy.deepcopy(before)
    parts = [implementation.graph.root, *implementation.graph.components.values()]
    for task in (task for part in parts for task in part.dag.tasks.values()):
        task.ClearField("retry_policy")
    try:
        yield
    finally:
        implementation.graph = before


@contextlib.contextmanager
def _lock_lent() -> Iterator[None]:
    """Let tasks work on the output that this process holds."""
    before = os.environ.get(HOLDER_VARIABLE)
    os.environ[HOLDER_VARIABLE] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[HOLDER_VARIABLE]
        if before is not None:
            os.environ[HOLDER_VARIABLE] = before


class _Listener(io.TextIOBase):
    """Passes KFP's output on to stderr and keeps the last error in it.

    KFP's local runner drops a task's exit code and says only that it failed.
    """

    def __init__(self) -> None:
        self.words = ""
        self.code = EXIT_FAILURE
        self._line = ""
        self._kinds = _kinds(FsbError)

    def write(self, text: str) -> int:
        sys.stderr.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._read(line)
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def _read(self, line: str) -> None:
        told = _TOLD.fullmatch(line)
        if not told:
            return
        code = _STAGE_CODE.match(told["text"])
        if code:  # the stage's own words came before
            self.words, self.code = self.words or told["text"], int(code[1])
        elif told["kind"] in self._kinds:
            self.words = f"{told['kind']}: {told['text']}"
            self.code = self._kinds[told["kind"]].exit_code


def _kinds(kind: type[FsbError]) -> dict[str, type[FsbError]]:
    """Return a kind of error and those below it by name."""
    found = {kind.__name__: kind}
    for below in kind.__subclasses__():
        found |= _kinds(below)
    return found


def _finished(spec: RunSpec, complete: Mapping[Stage, StageResult | None]) -> Iterator[StageResult]:
    """Yield the stages that ended well, in order, up to the one that did not."""
    for stage in spec.stages:
        places = record_places(spec, stage)
        made = [record for place in places if (record := records.find_record(place)) is not None]
        pages = storage.join(spec.output_of(stage), "leaderboard.html")
        if len(made) < len(places) or not (places or storage.exists(pages)):
            return
        yield complete[stage] or StageResult(
            stage=stage,
            seconds=sum(record.seconds for record in made),
            was_complete=False,
            places=tuple(places) or (spec.output_of(stage),),
            records=tuple(made),
        )
