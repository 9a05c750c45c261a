# SPDX-License-Identifier: Apache-2.0
"""The run spec and how it is read; the single source of every setting of a run."""

from __future__ import annotations

from pyfsb.config.loading import load_spec, pin_checkpoint, resolve_spec, set_value
from pyfsb.config.run_spec import RunSpec, default_threads, stage_hash
from pyfsb.config.sections import (
    BatchSpec,
    DataSpec,
    EvaluationSpec,
    Family,
    FinetuneSpec,
    GateSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    ParallelismSpec,
    ServingSpec,
    Stage,
    TaskSpec,
    TrainingSpec,
    VocabularySpec,
)

__all__ = [
    "BatchSpec",
    "DataSpec",
    "EvaluationSpec",
    "Family",
    "FinetuneSpec",
    "GateSpec",
    "ModelSpec",
    "ObjectiveSpec",
    "OptimizerSpec",
    "ParallelismSpec",
    "RunSpec",
    "ServingSpec",
    "Stage",
    "TaskSpec",
    "TrainingSpec",
    "VocabularySpec",
    "default_threads",
    "load_spec",
    "pin_checkpoint",
    "resolve_spec",
    "set_value",
    "stage_hash",
]
