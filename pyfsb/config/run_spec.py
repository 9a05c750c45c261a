# SPDX-License-Identifier: Apache-2.0
"""The run spec: one typed value is the single source of every setting of a run.

Built by `pyfsb.config.loading`, read by every stage and engine. Never reads a file.
"""

from __future__ import annotations

import os
from typing import Annotated, Self

from pydantic import Field, model_validator

from pyfsb import storage
from pyfsb.config.objective_section import ObjectiveSpec
from pyfsb.config.sections import (
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    Name,
    ServingSpec,
    Stage,
    TaskSpec,
)
from pyfsb.config.training_sections import (
    BatchSpec,
    OptimizerSpec,
    ParallelismSpec,
    TrainingSpec,
)
from pyfsb.errors import ConfigError
from pyfsb.schema import Json, Schema, digest


class RunSpec(Schema):
    """Everything about one run, from raw text to a served model."""

    name: Name
    """Name of the run; shown in records and on the leaderboard."""
    output: str
    """Folder or s3:// for everything the run writes."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of every random choice but those of evaluation.finetune.seeds."""
    model: ModelSpec
    """Which model."""
    data: DataSpec = DataSpec()
    """Which text."""
    objective: ObjectiveSpec = ObjectiveSpec()
    """Which pretraining objective."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """Optimizer of pretraining."""
    batch: BatchSpec = BatchSpec()
    """Batch sizes of pretraining."""
    training: TrainingSpec = TrainingSpec()
    """Length of pretraining and its checkpoints."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """Processes and sharding, for pretraining and fine-tuning."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What to score."""
    serving: ServingSpec = ServingSpec()
    """What to serve."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages this spec asks for, in order."""
        scores = bool(self.evaluation.tasks or self.has_labelled_rows)
        wanted = {
            Stage.DATA: bool(self.data.corpus or self.data.rows or self.has_labelled_rows),
            Stage.TRAINING: bool(self.data.corpus or self.data.blend or self.data.rows),
            Stage.EVALUATION: scores,
            Stage.LEADERBOARD: scores,
            Stage.SERVING: scores and self.serving.is_enabled,
        }
        return tuple(stage for stage in Stage if wanted[stage])

    @property
    def has_labelled_rows(self) -> bool:
        """Whether there are rows of the user's own: one file, or a mixture of sets."""
        return bool(self.data.train or self.data.mixture)

    @property
    def labelled_files(self) -> tuple[str, ...]:
        """The files of those rows, in the order in which they are read."""
        data = self.data
        if data.mixture is None:
            return tuple(path for path in (data.train, data.test) if path)
        return tuple(
            storage.resolve(path, data.root)
            for part in data.mixture.sets
            for path in (part.train, part.test)
            if path
        )

    @property
    def own_task(self) -> TaskSpec:
        """The task of those rows, read from its file by `load_spec`."""
        if self.data.mixture:
            return self.data.mixture.task
        if isinstance(self.data.task, str):
            raise ConfigError(f"data.task = {self.data.task!r} was not read; use load_spec")
        return self.data.task

    def output_of(self, stage: Stage) -> str:
        """Return the folder that a stage writes."""
        return storage.join(self.output, stage.value)

    @model_validator(mode="after")
    def _is_something_to_do(self) -> Self:
        if not self.stages:
            raise ValueError("nothing to do: set data.corpus, data.train or evaluation.tasks")
        if self.data.rows and (self.data.corpus or self.data.blend):
            raise ValueError(
                "data.rows and data.corpus are two trainings: give one, then start the other from "
                "it with model.checkpoint"
            )
        if self.model.checkpoint is None and Stage.TRAINING not in self.stages:
            raise ValueError(
                "no weights and no text to learn from: set model.checkpoint or data.corpus"
            )
        return self


_RESULT_OF_TRAINING = (
    "max_steps", "num_epochs", "validation_samples", "validate_every_steps", "patience", "spikes",
    "lora",
)  # fmt: skip
"""Fields of `training` that its result depends on."""


def stage_hash(spec: RunSpec, stage: Stage) -> str:
    """Return the digest of every setting that a stage's result depends on.

    Where things lie and how they are made (paths, ports, numbers of processes) are not part of
    it: a run may continue on another machine, and contents are compared by digests: of the files
    in a DatasetRecord, and of the records and first weights that a record links to.
    """
    runtime = {"root", "corpus", "rows", "train", "test", "num_processes", "cache_bytes"}
    order = ("blend_temperature", "corpus_weight", "shuffle_shards")
    serving_runtime = {"host", "port", "startup_timeout_seconds"}
    dump = spec.model_dump(mode="json")
    data = {
        key: value
        for key, value in dump["data"].items()
        if key not in runtime and key not in order and key != "blend"
    }
    data["vocabulary"]["file"] = bool(spec.data.vocabulary.file)
    data["tokenizer"] = bool(spec.data.tokenizer)  # contents are compared by the record's inputs
    sampling = _take_sampling(data.get("mixture"))
    model = {"name": spec.model.name, "config": spec.model.config}
    parts: dict[Stage, Json] = {
        Stage.DATA: {
            "seed": spec.seed,
            "data": data,
            # What a tokenizer, columns and rows must be follows from these where data is silent.
            "model": spec.model.name,
            "objective": spec.objective.name,
        },
        Stage.TRAINING: {
            "model": model,
            **{key: dump[key] for key in ("seed", "objective", "optimizer", "batch")},
            "training": {key: dump["training"][key] for key in _RESULT_OF_TRAINING},
            "order": {key: dump["data"][key] for key in order},
            "blend": [{"name": part.name, "weight": part.weight} for part in spec.data.blend],
            # Texts are cut by the data stage, rows by the training.
            **({"max_tokens": spec.data.max_tokens} if spec.data.rows else {}),
        },
        Stage.EVALUATION: {
            "model": model,
            "evaluation": dump["evaluation"],
            **sampling,
        },
        Stage.LEADERBOARD: {},
        Stage.SERVING: {
            key: value for key, value in dump["serving"].items() if key not in serving_runtime
        },
    }
    return digest(parts[stage])


def _take_sampling(mixture: Json | None) -> Json:
    """Take from a mixture what the data stage does not depend on; return how it is sampled."""
    if not mixture:
        return {}
    weights = {}
    for part in mixture["sets"]:
        weights[part["name"]] = part.pop("weight")
        del part["train"], part["test"]
    return {"mixture": {"temperature": mixture.pop("temperature"), "weights": weights}}


def available_cores() -> int:
    """Return the CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads(parallelism: ParallelismSpec) -> int:
    """Return CPU threads of a process: as set, else an even share of this machine's cores."""
    share = available_cores() // parallelism.num_processes
    return parallelism.threads_per_process or max(1, share)
