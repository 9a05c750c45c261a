# SPDX-License-Identifier: Apache-2.0
"""One training from its first weights to a published checkpoint, whatever it trains on.

Pretraining (`run`) and fine-tuning (`evaluation.finetune`) describe a `Session`; what follows is
the same for both: continue or start, train, gather, export, record. All ranks call these
functions, the first one writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel

from pyfsb import records
from pyfsb.config import BatchSpec, Family, OptimizerSpec, ParallelismSpec
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.errors import CheckpointError, StorageError
from pyfsb.models.heads import LOSSES
from pyfsb.models.loading import count_parameters, read_pieces
from pyfsb.processes import StopRequest
from pyfsb.records import MODEL_FOLDER, CheckpointRecord, Parent
from pyfsb.storage.workspace import Workspace
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup, describe_device
from pyfsb.training.export import export_model, gather_weights, publish
from pyfsb.training.loop import LoopSettings, train
from pyfsb.training.meters import METRICS_NAME, final_loss, open_meters, read_metrics
from pyfsb.training.progress import Part, Work, peak_flops
from pyfsb.training.protocol import SampleSource

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Everything that decides a training's result, and where it goes."""

    title: str
    """Name on progress lines and metrics."""
    workspace: Workspace
    """The training's folder."""
    model: PreTrainedModel
    """The model with its first weights."""
    family: Family
    """Decides the loss."""
    tokenizer_folder: Path
    """Where the tokenizer's files lie; they go into the checkpoint."""
    source: SampleSource
    """The samples."""
    optimizer: OptimizerSpec
    """Optimizer and schedule."""
    batch: BatchSpec
    """Batch sizes."""
    seed: int
    """Order, masking and dropout."""
    num_steps: int
    """Steps in all."""
    save_every_steps: int
    """Steps between saved states."""
    keep_last: int
    """Saved states to keep."""
    parallelism: ParallelismSpec
    """Processes and ZeRO stage."""
    config_hash: str
    """Digest of the settings, for the record and for continuing."""
    parents: tuple[Parent, ...]
    """What the result is made from; a saved state made from others is refused."""
    metrics_port: int | None = None
    """Port of the Prometheus endpoint."""
    part: Part | None = None
    """Its place among the stage's trainings. None when it is the only one."""
    started: float = field(default_factory=time.monotonic)
    """Clock at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training that reached its last step."""

    state: TrainState
    weights: Mapping[str, Tensor]
    """Full weights by the model's own names."""


def train_to_end(session: Session, group: ProcessGroup, stop: StopRequest) -> Trained | None:
    """Train, continuing from the newest saved state if there is one.

    Returns:
        The result, or None when a stop request ended it before the last step.

    Raises:
        CheckpointError: The saved state is of other settings or data.
        DataError: The loss is not a number.
    """
    store = CheckpointStore(
        session.workspace,
        fingerprint={
            "settings": session.config_hash,
            **{
                f"{parent.kind} {number}": parent.digest
                for number, parent in enumerate(session.parents, start=1)
            },
        },
        keep_last=session.keep_last,
    )
    work = _measure(session, group)  # before ZeRO-3 takes the parameters apart
    state, engine = _start(session, store, group)
    if group.is_first:
        session.workspace.pull_file(METRICS_NAME)
    settings = LoopSettings(
        optimizer=session.optimizer,
        batch=session.batch,
        seed=session.seed,
        num_steps=session.num_steps,
        save_every_steps=session.save_every_steps,
    )
    with open_meters(
        session.workspace.path if group.is_first else None,
        name=session.title,
        work=work,
        step=state.step,
        metrics_port=session.metrics_port,
    ) as meters:
        state = train(
            engine, session.source, settings, state, group, store=store, meters=meters, stop=stop
        )
    if state.step < session.num_steps:
        return None
    return Trained(state=state, weights=gather_weights(engine))


def publish_checkpoint(
    session: Session,
    trained: Trained,
    *,
    run: str,
    model: str,
    objective: str,
    max_tokens: int,
    task: str | None = None,
    labels: tuple[str, ...] = (),
) -> CheckpointRecord:
    """Export the weights and write the record; the first rank calls it.

    Args:
        session: The training.
        trained: Its result.
        run: Name of the run.
        model: Name of the registry entry.
        objective: What it was trained on.
        max_tokens: Tokens of an input at most.
        task: Task of a fine-tuning.
        labels: Labels in the order of the outputs.
    """
    folder = session.workspace.path
    export_model(session.model, trained.weights, session.tokenizer_folder, folder / MODEL_FOLDER)
    record = CheckpointRecord(
        run=run,
        created_at=records.now(),
        seconds=time.monotonic() - session.started,
        config_hash=session.config_hash,
        seeds=(session.seed,),
        parents=session.parents,
        model=model,
        architecture=session.model.config.model_type,
        family=session.family.value,
        objective=objective,
        task=task,
        labels=labels,
        num_parameters=sum(tensor.numel() for tensor in trained.weights.values()),
        step=trained.state.step,
        num_samples=trained.state.num_samples,
        num_tokens=trained.state.num_tokens,
        loss=final_loss(read_metrics(folder / METRICS_NAME)),
        max_tokens=max_tokens,
        vocabulary_digest=vocabulary_digest(read_pieces(session.tokenizer_folder)),
    )
    return publish(session.workspace, record)


def _measure(session: Session, group: ProcessGroup) -> Work:
    """Return what the training's share and speed are measured against."""
    peak = peak_flops(describe_device(group.device))
    return Work(
        num_steps=session.num_steps,
        num_parameters=count_parameters(session.model),
        peak_flops=peak * group.size if peak else None,
        part=session.part,
    )


def _start(
    session: Session, store: CheckpointStore, group: ProcessGroup
) -> tuple[TrainState, Engine]:
    """Return the state to go on from and an engine that stands there.

    Raises:
        CheckpointError: The saved state is of other settings or data.
        StorageError: The processes do not see the same newest state; another try may.
    """
    module: nn.Module = LOSSES[session.family](session.model)
    restored = store.load_latest()
    steps = group.gather(restored.state.step if restored else 0)
    if len(set(steps)) > 1:
        raise StorageError(
            f"{session.workspace.uri}: ranks 0 to {group.size - 1} found saved states of steps "
            f"{steps}; all must continue from the same one"
        )
    if restored is None:
        return TrainState(), Engine(module, session.optimizer, session.parallelism)
    unknown = module.load_state_dict(dict(restored.weights), strict=False).unexpected_keys
    if unknown:
        raise CheckpointError(f"the saved state holds unknown weights: {', '.join(unknown[:3])}")
    engine = Engine(module, session.optimizer, session.parallelism)
    engine.set_state(restored.weights, restored.moments, step=restored.state.step)
    _log.info("%s: continuing from step %d", session.title, restored.state.step)
    return restored.state, engine
