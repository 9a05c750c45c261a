# SPDX-License-Identifier: Apache-2.0
"""The run spec and how it is read; the single source of every setting of a run."""

from __future__ import annotations

from pyfsb.config.corpus_sections import GapSpec, KnowledgeSpec, NgramSpec, TokenizerKind
from pyfsb.config.loading import load_spec, pin_checkpoint, resolve_spec, set_value
from pyfsb.config.objective_section import ObjectiveName, ObjectiveSpec
from pyfsb.config.run_spec import RunSpec, default_threads, stage_hash
from pyfsb.config.sections import (
    BlendPart,
    DataSpec,
    EvaluationSpec,
    Family,
    FinetuneSpec,
    GateSpec,
    MixtureSet,
    MixtureSpec,
    ModelSpec,
    ServingSpec,
    Stage,
    TaskSpec,
    VocabularySpec,
)
from pyfsb.config.training_sections import (
    BatchSpec,
    EnergySpec,
    LoraSpec,
    OptimizerSpec,
    ParallelismSpec,
    SpikeSpec,
    TrainingSpec,
)

__all__ = [
    "BatchSpec",
    "BlendPart",
    "DataSpec",
    "EnergySpec",
    "EvaluationSpec",
    "Family",
    "FinetuneSpec",
    "GapSpec",
    "GateSpec",
    "KnowledgeSpec",
    "LoraSpec",
    "MixtureSet",
    "MixtureSpec",
    "ModelSpec",
    "NgramSpec",
    "ObjectiveName",
    "ObjectiveSpec",
    "OptimizerSpec",
    "ParallelismSpec",
    "RunSpec",
    "ServingSpec",
    "SpikeSpec",
    "Stage",
    "TaskSpec",
    "TokenizerKind",
    "TrainingSpec",
    "VocabularySpec",
    "default_threads",
    "load_spec",
    "pin_checkpoint",
    "resolve_spec",
    "set_value",
    "stage_hash",
]
