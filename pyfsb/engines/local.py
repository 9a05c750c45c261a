# SPDX-License-Identifier: Apache-2.0
"""The local engine: each stage a subprocess with the entry point that its image has too.

Holds the output's lock, keeps what is complete, and stops at the first failure. Imports no stage;
pipelines' components call `run_stage` for one stage.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from typing import Final

from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage, pin_checkpoint
from pyfsb.engines.completion import SPEC_NAME, find_complete, read_spec, record_places
from pyfsb.engines.protocol import RunResult, StageResult
from pyfsb.engines.serve import check_port, serve_and_ask
from pyfsb.errors import EXIT_TERMINATED, FsbError
from pyfsb.processes import run_child
from pyfsb.schema import to_yaml
from pyfsb.storage.locks import hold_lock

MODULES: Final = {
    Stage.DATA: "pyfsb.data",
    Stage.TRAINING: "pyfsb.training",
    Stage.EVALUATION: "pyfsb.evaluation",
    Stage.LEADERBOARD: "pyfsb.leaderboard",
}
"""Entry point of each stage that is a batch job."""
_log = logging.getLogger(__name__)


class StageFailedError(FsbError):
    """A stage ended with an error, which it has told itself."""

    def __init__(self, stage: Stage, code: int) -> None:
        """Keep the stage's exit code as this error's."""
        super().__init__(f"stage {stage} ended with exit code {code}; its error is above")
        self.exit_code = code  # type: ignore[misc]


def run(spec: RunSpec, result: RunResult, *, keeps_serving: bool) -> None:
    """Run every stage of a spec that is not complete.

    Raises:
        ConfigError: The output holds stages made with other settings.
        GateError: The score does not allow serving.
        StageFailedError: A stage failed; carries its exit code.
        NotReadyError: Another run holds the output.
    """
    spec = pin_checkpoint(spec)
    with hold_lock(spec.output):
        before = read_spec(spec.output)
        complete = {stage: find_complete(spec, stage, before) for stage in spec.stages}
        if Stage.SERVING in spec.stages and (keeps_serving or not complete[Stage.SERVING]):
            check_port(spec)
        write_spec(spec)
        for stage in spec.stages:
            done = complete[stage]
            if done and not (stage is Stage.SERVING and keeps_serving):
                _log.info("[%s] complete since %s", stage, done.records[0].created_at)
                result.stages.append(done)
                continue
            result.stages.append(_run_stage(spec, stage, result, keeps_serving=keeps_serving))


def run_stage(spec: RunSpec, stage: Stage) -> StageResult:
    """Run one stage of a spec unless it is complete; what pipelines' components do.

    Raises:
        FsbError: As `run`.
    """
    spec = pin_checkpoint(spec)
    with hold_lock(spec.output):
        done = find_complete(spec, stage, read_spec(spec.output))
        write_spec(spec)
        return done or _run_stage(spec, stage, RunResult(), keeps_serving=False)


def write_spec(spec: RunSpec) -> str:
    """Write the resolved spec into the output; returns its URI."""
    uri = storage.join(spec.output, SPEC_NAME)
    storage.write_text(uri, to_yaml(spec.to_json()))
    return uri


def stage_command(spec: RunSpec, stage: Stage) -> list[str]:
    """Return the command of a batch stage."""
    uri = storage.join(spec.output, SPEC_NAME)
    return [sys.executable, "-m", MODULES[stage], "--spec", uri]


def _run_stage(
    spec: RunSpec, stage: Stage, result: RunResult, *, keeps_serving: bool
) -> StageResult:
    started = time.monotonic()
    _log.info("[%s] started", stage)
    if stage is Stage.SERVING:
        result.server = serve_and_ask(spec, keeps_serving=keeps_serving)
    else:
        end = run_child(stage_command(spec, stage))
        if end.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        if end.signal_number is not None:
            raise SystemExit(EXIT_TERMINATED)
        if end.code:
            raise StageFailedError(stage, end.code)
    places = record_places(spec, stage) or [spec.output_of(stage)]
    made = [records.read_record(place) for place in record_places(spec, stage)]
    seconds = time.monotonic() - started
    _log.info("[%s] done in %.1f s", stage, seconds)
    return StageResult(
        stage=stage,
        seconds=seconds,
        was_complete=False,
        places=tuple(places),
        records=tuple(made),
    )
