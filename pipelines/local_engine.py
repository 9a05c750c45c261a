# SPDX-License-Identifier: Apache-2.0
"""Engine `kfp-local`: the compiled pipeline's own components, run by KFP's local runner.

The same records come out as from the local engine; only times and the run's folders differ.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import time

from kfp import local

from pipelines.end_to_end import end_to_end
from pyfsb import records
from pyfsb.config import RunSpec
from pyfsb.engines.completion import record_places
from pyfsb.engines.protocol import RunResult, StageResult
from pyfsb.errors import ConfigError, FsbError
from pyfsb.schema import to_yaml

_log = logging.getLogger(__name__)


class PipelineFailedError(FsbError):
    """A task of the pipeline failed; its own error is above."""


def run(spec: RunSpec, result: RunResult, *, keeps_serving: bool) -> None:
    """Run a spec through `end_to_end` with KFP's SubprocessRunner.

    Raises:
        ConfigError: The spec leaves out a stage of the pipeline, or asks to keep serving.
        PipelineFailedError: A task failed.
    """
    if keeps_serving:
        raise ConfigError("--serve: a pipeline's tasks end; use --engine local, or `fsb serve`")
    if len(spec.stages) < 5:
        raise ConfigError(
            "engine kfp-local runs all stages; this spec has only "
            f"{', '.join(spec.stages)} (set data.corpus and evaluation.tasks)"
        )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fsb-kfp-") as root:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # KFP prints its tasks' logs
                end_to_end(spec=to_yaml(spec.to_json()))
        except RuntimeError as exc:
            raise PipelineFailedError(f"pipeline end-to-end failed: {exc}") from None
    _log.info("pipeline done in %.1f s", time.monotonic() - started)
    for stage in spec.stages:
        places = record_places(spec, stage)
        made = tuple(records.read_record(place) for place in places)
        result.stages.append(
            StageResult(
                stage=stage,
                seconds=sum(record.seconds for record in made),
                was_complete=False,
                places=tuple(places) or (spec.output_of(stage),),
                records=made,
            )
        )
