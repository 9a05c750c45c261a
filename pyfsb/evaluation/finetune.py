# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model on a task's rows, with the same loop, engine and checkpoints as pretraining.

Called by `run` on every rank; ends with a checkpoint that `pyfsb.load` and the server load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyfsb import records
from pyfsb.config import Family, FinetuneSpec, ParallelismSpec, TrainingSpec
from pyfsb.data.labelled import Example
from pyfsb.data.splitting import choose_held_out
from pyfsb.errors import DataError
from pyfsb.evaluation.protocol import Task
from pyfsb.evaluation.rows import SetRows
from pyfsb.evaluation.sources import RowSource
from pyfsb.inference.tag import bio_labels
from pyfsb.models.building import max_positions
from pyfsb.models.loading import check_fits, load_model, load_tokenizer
from pyfsb.models.ngrams import find_lexicon
from pyfsb.processes import StopRequest
from pyfsb.records import Parent
from pyfsb.schema import Json, digest
from pyfsb.storage.workspace import Workspace
from pyfsb.tokenizers.ngram_lexicon import NgramLimit
from pyfsb.training.batching import StepPlanner
from pyfsb.training.best import FOLDER as BEST_FOLDER
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.order import Part as OrderedPart
from pyfsb.training.order import SampleOrder, build_order
from pyfsb.training.progress import Part
from pyfsb.training.session import Session, publish_checkpoint, train_to_end
from pyfsb.training.state_files import FOLDER as STATE_FOLDER

_SAVE_EVERY_STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The model that every task starts from."""

    folder: Path
    """Hugging Face folder."""
    model: str
    """Name of the registry entry."""
    uri: str
    """Where it lies on storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuning:
    """One fine-tuning: which model, on what, how, and where it goes."""

    base: Base
    """The model to start from."""
    task: Task
    """Family, fields and labels."""
    examples: Sequence[Example]
    """Training rows."""
    settings: FinetuneSpec
    """Rates, sizes and lengths."""
    seed: int
    """Of the head, the order and the dropout."""
    run: str
    """Name of the run."""
    workspace: Workspace
    """Folder of this fine-tuning."""
    parallelism: ParallelismSpec
    """Processes and ZeRO stage."""
    parents: tuple[Parent, ...]
    """Links for the record: the base and the rows."""
    training: TrainingSpec
    """Of it only what is watched and told: hang timeout, energy, MLflow."""
    part: Part
    """Its place among the evaluation's fine-tunings, for progress reports."""
    sets: Sequence[SetRows] = ()
    """Of a mixture its sets, in the order of the rows."""
    temperature: float = 1.0
    """Of a mixture: above 1, small sets get more than their share."""

    @property
    def config_hash(self) -> str:
        """Digest of everything but the parents that decides the result."""
        settings = self.settings.to_json()
        value: Json = {"settings": settings, "seed": self.seed, "task": self.task.spec.to_json()}
        if self.sets:
            value["weights"] = {part.name: part.weight for part in self.sets}
            value["temperature"] = self.temperature
        return digest(value)


def finetune(work: Finetuning, group: ProcessGroup, stop: StopRequest) -> bool:
    """Fine-tune with one seed and export; what is complete is kept.

    Returns:
        False when a stop request ended it before the last step.

    Raises:
        CheckpointError: The base cannot be used.
        DataError: The loss is not a number.
    """
    done = records.find_record(work.workspace.uri)
    same = done and _digests(done.parents) == _digests(work.parents)
    if done and same and done.config_hash == work.config_hash:
        return True
    session, max_tokens = _build_session(work)
    trained = train_to_end(session, group, stop)
    if trained is None:
        return False
    if group.is_first:
        publish_checkpoint(
            session,
            trained,
            run=work.run,
            model=work.base.model,
            objective="finetune",
            max_tokens=max_tokens,
            task=work.task.name,
            labels=tuple(_output_labels(work.task)),
        )
        for folder in (STATE_FOLDER, BEST_FOLDER):
            work.workspace.remove(folder)
    group.barrier()
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows in the order of their numbers as samples: those to train on, then the others."""

    examples: list[Example]
    num_train: list[int]
    """Training rows of each set; of a task that is no mixture one number."""


def _build_session(work: Finetuning) -> tuple[Session, int]:
    """Put model and rows together; also returns the tokens of a row at most."""
    family, settings = work.task.spec.family, work.settings
    labels = _output_labels(work.task)
    model = load_model(work.base.folder, family, seed=work.seed, labels=labels)
    tokenizer = load_tokenizer(work.base.folder)
    check_fits(model, tokenizer, work.base.folder)
    max_tokens = min(settings.max_tokens, max_positions(model.config))
    rows = _split_rows(work)
    source = RowSource(
        tokenizer,
        rows.examples,
        work.task.spec,
        max_tokens=max_tokens,
        lexicon=find_lexicon(model.config, tokenizer),
        ngram_limit=NgramLimit(max_tokens=max_positions(model.config)),
    )
    order = _build_order(work, rows)
    session = Session(
        title=f"{work.task.name} seed {work.seed}",
        workspace=work.workspace,
        model=model,
        family=family,
        tokenizer_folder=work.base.folder,
        source=source,
        order=order,
        lora=settings.lora,
        held_out_ids=np.arange(sum(rows.num_train), len(rows.examples)),
        validate_every_steps=settings.validate_every_steps,
        patience=settings.patience,
        optimizer=settings.optimizer,
        batch=settings.batch,
        seed=work.seed,
        num_steps=_num_steps(source, order, settings),
        save_every_steps=_SAVE_EVERY_STEPS,
        keep_last=1,
        parallelism=work.parallelism,
        hang_timeout_seconds=work.training.hang_timeout_seconds,
        energy=work.training.energy,
        mlflow_uri=work.training.mlflow_uri,
        config_hash=work.config_hash,
        parents=work.parents,
        part=work.part,
    )
    return session, max_tokens


def _split_rows(work: Finetuning) -> _Rows:
    """Hold out rows to validate on, where patience asks for them.

    No text and no template stands on both sides, and every label of every set keeps a row.

    Raises:
        DataError: There are too few rows for that.
    """
    owners = [number for number, part in enumerate(work.sets) for _ in range(part.num_train)] or [
        0
    ] * len(work.examples)
    held: set[int] = set()
    if work.settings.patience:
        num_wanted = max(1, round(work.settings.validation_ratio * len(work.examples)))
        held = choose_held_out(
            [row.marks for row in work.examples],
            [
                frozenset(f"{owner} {label}" for label in row.labels)
                for owner, row in zip(owners, work.examples, strict=True)
            ],
            num_wanted=num_wanted,
            num_limit=len(work.examples) // 2,
            seed=work.seed,
        )
        if not held:
            raise DataError(
                f"{work.task.name}: of {len(work.examples)} training rows none can be held out to "
                "validate on; give more rows, or leave evaluation.finetune.patience out"
            )
    kept = [number for number in range(len(work.examples)) if number not in held]
    counts = Counter(owners[number] for number in kept)
    return _Rows(
        examples=[work.examples[number] for number in [*kept, *sorted(held)]],
        num_train=[counts[number] for number in range(max(1, len(work.sets)))],
    )


def _build_order(work: Finetuning, rows: _Rows) -> SampleOrder:
    """Return the order of the training rows: shuffled, of a mixture by the sets' weights."""
    names = [part.name for part in work.sets] or [work.task.name]
    weights = [part.weight for part in work.sets] or [None]
    parts = [
        OrderedPart(name=name, shard_samples=np.array([num_rows]), weight=weight)
        for name, num_rows, weight in zip(names, rows.num_train, weights, strict=True)
    ]
    return build_order(parts, seed=work.seed, temperature=work.temperature)


def _output_labels(task: Task) -> list[str]:
    """Return the labels of the model's outputs: the task's, or their BIO forms."""
    if task.spec.family is Family.TAG:
        return bio_labels(task.spec.labels)
    return list(task.spec.labels)


def _num_steps(source: RowSource, order: SampleOrder, settings: FinetuneSpec) -> int:
    """Return the steps: whole passes, more for small sets, cut at max_steps."""
    planner = StepPlanner(source.lengths, order, tokens=settings.batch.tokens)
    per_epoch = planner.count_steps(1)
    num_steps = max(per_epoch * settings.num_epochs, settings.min_steps)
    return min(num_steps, settings.max_steps or num_steps)


def _digests(parents: Sequence[Parent]) -> list[str]:
    return [parent.digest for parent in parents]
