# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model on a task's rows, with the same loop, engine and checkpoints as pretraining.

Called by `run` on every rank; ends with a checkpoint that `pyfsb.load` and the server load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pyfsb import records
from pyfsb.config import Family, FinetuneSpec, ParallelismSpec
from pyfsb.data.labelled import Example
from pyfsb.evaluation.protocol import Task
from pyfsb.inference.encoding import EncodedRow, encode_rows, pad_rows
from pyfsb.inference.protocol import TextInput
from pyfsb.inference.tag import bio_labels, encode_entities
from pyfsb.models.loading import check_fits, load_model, load_tokenizer, max_positions
from pyfsb.processes import StopRequest
from pyfsb.records import Parent
from pyfsb.schema import digest
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import StepPlanner
from pyfsb.training.checkpoint import FOLDER as STATE_FOLDER
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.progress import Part
from pyfsb.training.protocol import Batch
from pyfsb.training.session import Session, publish_checkpoint, train_to_end

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


class RowSource:
    """Labelled rows as training samples."""

    def __init__(
        self, rows: Sequence[EncodedRow], examples: Sequence[Example], task: Task, *, pad_id: int
    ) -> None:
        """Keep encoded rows and their gold answers."""
        self._rows = rows
        self._pad_id = pad_id
        self._family = task.spec.family
        self.lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
        if self._family is Family.TAG:
            labels = bio_labels(task.spec.labels)
            self._tags = [
                encode_entities(
                    row, [(e.start, e.end, e.type) for e in example.entities or ()], labels
                )
                for row, example in zip(rows, examples, strict=True)
            ]
        else:
            number_of = {label: number for number, label in enumerate(task.spec.labels)}
            self._targets = [number_of[str(example.label)] for example in examples]

    def collate(self, sample_ids: NDArray[np.int64], epoch: int) -> Batch:
        """Return the batch of these rows; the pass does not matter."""
        chosen = sample_ids.tolist()
        inputs = pad_rows([self._rows[number] for number in chosen], pad_id=self._pad_id)
        num_tokens = int(inputs["attention_mask"].sum())
        if self._family is not Family.TAG:
            inputs["target_ids"] = torch.tensor([self._targets[number] for number in chosen])
            return Batch(inputs=inputs, num_targets=len(chosen), num_tokens=num_tokens)
        width = inputs["input_ids"].shape[1]
        positions = [
            row * width + place
            for row, number in enumerate(chosen)
            for place in self._tags[number][0]
        ]
        targets = [target for number in chosen for target in self._tags[number][1]]
        inputs["target_positions"] = torch.tensor(positions, dtype=torch.int64)
        inputs["target_ids"] = torch.tensor(targets, dtype=torch.int64)
        return Batch(inputs=inputs, num_targets=len(targets), num_tokens=num_tokens)


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
    part: Part
    """Its place among the evaluation's fine-tunings, for progress reports."""

    @property
    def config_hash(self) -> str:
        """Digest of everything but the parents that decides the result."""
        settings = self.settings.to_json()
        return digest({"settings": settings, "seed": self.seed, "task": self.task.spec.to_json()})


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
        work.workspace.remove(STATE_FOLDER)
    group.barrier()
    return True


def _build_session(work: Finetuning) -> tuple[Session, int]:
    """Put model and rows together; also returns the tokens of a row at most."""
    family, settings = work.task.spec.family, work.settings
    labels = _output_labels(work.task)
    model = load_model(work.base.folder, family, seed=work.seed, labels=labels)
    tokenizer = load_tokenizer(work.base.folder)
    check_fits(model, tokenizer, work.base.folder)
    max_tokens = min(settings.max_tokens, max_positions(model.config))
    rows = encode_rows(
        tokenizer,
        [TextInput(text=example.text, text_pair=example.text_pair) for example in work.examples],
        max_tokens=max_tokens,
        keeps_characters=family is Family.TAG,
    )
    pad_id = int(tokenizer.convert_tokens_to_ids(str(tokenizer.pad_token)))
    source = RowSource(rows, work.examples, work.task, pad_id=pad_id)
    session = Session(
        title=f"{work.task.name} seed {work.seed}",
        workspace=work.workspace,
        model=model,
        family=family,
        tokenizer_folder=work.base.folder,
        source=source,
        optimizer=settings.optimizer,
        batch=settings.batch,
        seed=work.seed,
        num_steps=_num_steps(source, settings, work.seed),
        save_every_steps=_SAVE_EVERY_STEPS,
        keep_last=1,
        parallelism=work.parallelism,
        config_hash=work.config_hash,
        parents=work.parents,
        part=work.part,
    )
    return session, max_tokens


def _output_labels(task: Task) -> list[str]:
    """Return the labels of the model's outputs: the task's, or their BIO forms."""
    if task.spec.family is Family.TAG:
        return bio_labels(task.spec.labels)
    return list(task.spec.labels)


def _num_steps(source: RowSource, settings: FinetuneSpec, seed: int) -> int:
    """Return the steps: whole passes, more for small sets, cut at max_steps."""
    planner = StepPlanner(source.lengths, tokens=settings.batch.tokens, seed=seed)
    per_epoch = planner.count_steps(1)
    num_steps = max(per_epoch * settings.num_epochs, settings.min_steps)
    return min(num_steps, settings.max_steps or num_steps)


def _digests(parents: Sequence[Parent]) -> list[str]:
    return [parent.digest for parent in parents]
