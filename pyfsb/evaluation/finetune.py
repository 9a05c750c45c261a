# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model on a task's rows, with the same loop, engine and checkpoints as pretraining.

Called by `run` on every rank; ends with a checkpoint that `pyfsb.load` and the server load.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pyfsb import records
from pyfsb.config import Family, FinetuneSpec, ParallelismSpec
from pyfsb.data.labelled import Example
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.errors import CheckpointError
from pyfsb.evaluation.protocol import Task
from pyfsb.inference.encoding import EncodedRow, encode_rows, pad_rows
from pyfsb.inference.protocol import TextInput
from pyfsb.inference.tag import bio_labels, encode_entities
from pyfsb.models.heads import LOSSES
from pyfsb.models.loading import load_model, load_tokenizer, max_positions, read_pieces
from pyfsb.processes import StopRequest
from pyfsb.records import CheckpointRecord, Parent, Record
from pyfsb.schema import digest
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import StepPlanner
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.export import MODEL_FOLDER, export_model, gather_weights, publish
from pyfsb.training.loop import LoopSettings, train
from pyfsb.training.meters import METRICS_NAME, final_loss, open_meters, read_metrics
from pyfsb.training.protocol import Batch

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
    record: Record | None
    """Its record; None for a plain Hugging Face folder."""


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


def finetune(
    base: Base,
    task: Task,
    examples: Sequence[Example],
    settings: FinetuneSpec,
    *,
    seed: int,
    run: str,
    workspace: Workspace,
    parallelism: ParallelismSpec,
    parents: tuple[Parent, ...],
    group: ProcessGroup,
    stop: StopRequest,
) -> bool:
    """Fine-tune with one seed and export; what is complete is kept.

    Args:
        base: The model to start from.
        task: Family, fields and labels.
        examples: Training rows.
        settings: Rates, sizes and lengths.
        seed: Of the head, the order and the dropout.
        run: Name of the run.
        workspace: Folder of this fine-tuning.
        parallelism: Processes and ZeRO stage.
        parents: Links for the record: the base and the rows.
        group: All ranks.
        stop: A request to save and end.

    Returns:
        False when a stop request ended it before the last step.

    Raises:
        CheckpointError: The base cannot be used.
        DataError: The loss is not a number.
    """
    config_hash = digest(
        {"settings": settings.to_json(), "seed": seed, "task": task.spec.to_json()}
    )
    done = records.find_record(workspace.uri)
    if done and done.config_hash == config_hash and _digests(done.parents) == _digests(parents):
        return True
    started = time.monotonic()
    family, labels = task.spec.family, _output_labels(task)
    model = load_model(base.folder, family, seed=seed, labels=labels)
    tokenizer = load_tokenizer(base.folder)
    max_tokens = min(settings.max_tokens, max_positions(model.config))
    rows = encode_rows(
        tokenizer,
        [TextInput(text=example.text, text_pair=example.text_pair) for example in examples],
        max_tokens=max_tokens,
        keeps_characters=family is Family.TAG,
    )
    pad_id = int(tokenizer.convert_tokens_to_ids(str(tokenizer.pad_token)))
    source = RowSource(rows, examples, task, pad_id=pad_id)
    num_steps = _num_steps(source, settings, seed)
    store = CheckpointStore(
        workspace,
        fingerprint={
            "fine-tuning settings": config_hash,
            "parents": " ".join(_digests(parents)),
        },
        keep_last=1,
    )
    state, engine = _restore(model, family, settings, parallelism, store)
    folder = workspace.path if group.is_first else None
    with open_meters(
        folder, name=f"{task.name} seed {seed}", num_steps=num_steps, step=state.step
    ) as meters:
        loop = LoopSettings(
            optimizer=settings.optimizer, batch=settings.batch, seed=seed, num_steps=num_steps,
            save_every_steps=_SAVE_EVERY_STEPS,
        )  # fmt: skip
        state = train(engine, source, loop, state, group, store=store, meters=meters, stop=stop)
    if state.step < num_steps:
        return False
    weights = gather_weights(engine)
    if group.is_first:
        export_model(model, weights, base.folder, workspace.path / MODEL_FOLDER)
        record = CheckpointRecord(
            run=run,
            created_at=records.now(),
            seconds=time.monotonic() - started,
            config_hash=config_hash,
            seeds=(seed,),
            parents=parents,
            model=base.model,
            architecture=model.config.model_type,
            family=family.value,
            objective="finetune",
            task=task.name,
            labels=tuple(labels),
            num_parameters=sum(tensor.numel() for tensor in weights.values()),
            step=state.step,
            num_samples=state.num_samples,
            num_tokens=state.num_tokens,
            loss=final_loss(read_metrics(workspace.path / METRICS_NAME)),
            max_tokens=max_tokens,
            vocabulary_digest=vocabulary_digest(read_pieces(base.folder)),
        )
        store.remove()
        publish(workspace, record)
    group.barrier()
    return True


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


def _restore(
    model: PreTrainedModel,
    family: Family,
    settings: FinetuneSpec,
    parallelism: ParallelismSpec,
    store: CheckpointStore,
) -> tuple[TrainState, Engine]:
    module = LOSSES[family](model)
    restored = store.load_latest()
    if restored is not None:
        missing = module.load_state_dict(dict(restored.weights), strict=False).unexpected_keys
        if missing:
            raise CheckpointError(f"saved state holds unknown weights: {', '.join(missing[:3])}")
    engine = Engine(module, settings.optimizer, parallelism)
    if restored is None:
        return TrainState(), engine
    engine.set_state(restored.weights, restored.moments, step=restored.state.step)
    return restored.state, engine


def _digests(parents: Sequence[Parent]) -> list[str]:
    return [parent.digest for parent in parents]
