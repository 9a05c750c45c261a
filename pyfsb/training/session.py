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
from typing import Final

from torch import Tensor, nn
from transformers import PreTrainedModel

from pyfsb import records, storage
from pyfsb.config import (
    BatchSpec,
    EnergySpec,
    Family,
    LoraSpec,
    OptimizerSpec,
    ParallelismSpec,
    SpikeSpec,
)
from pyfsb.data.tokenizer_files import read_pieces_of
from pyfsb.data.vocabulary import vocabulary_digest
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.models.heads import Layout, build_loss, default_layout
from pyfsb.processes import StopRequest
from pyfsb.records import MODEL_FOLDER, CheckpointRecord, Parent
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import Ints, StepPlanner
from pyfsb.training.best import BestWeights
from pyfsb.training.building import count_parameters, is_sharded, shard
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.deepspeed import Engine, precision_of
from pyfsb.training.distributed import ProcessGroup, describe_device
from pyfsb.training.export import (
    TOKENIZER_FILES,
    export_model,
    gather_weights,
    plain_names,
    publish,
)
from pyfsb.training.flops import FlopCounter
from pyfsb.training.loader import Loader
from pyfsb.training.loop import End, TrainingLoop
from pyfsb.training.lora import add_adapters, merge_adapters
from pyfsb.training.meters import METER_FILES, METRICS_NAME, final_loss, open_meters, read_metrics
from pyfsb.training.order import SampleOrder
from pyfsb.training.progress import Part, Work, peak_flops
from pyfsb.training.protocol import SampleSource
from pyfsb.training.restoring import start_engine
from pyfsb.training.scalars import add_axes
from pyfsb.training.steering import Company, LoopSettings
from pyfsb.training.usage import read_usage
from pyfsb.training.validation import HeldOutLoss
from pyfsb.training.watchdog import Watchdog

_NEW_HEADS: Final = (Family.CLASSIFY, Family.PAIR, Family.TAG)
"""Families whose head a fine-tuning makes, so that it must learn beside adapters too."""
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
    order: SampleOrder
    """Which of them comes when."""
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
    keep_every_steps: int | None = None
    """Saved states of multiples of this step are kept for good."""
    spikes: SpikeSpec = field(default_factory=SpikeSpec)
    """What happens when a step cannot be used."""
    lora: LoraSpec | None = None
    """Train adapters only. None trains all weights."""
    held_out_ids: Ints | None = None
    """Samples of `source` to measure on, in no order. None measures nothing."""
    validate_every_steps: int | None = None
    """Steps between measurements. None measures once, at the end."""
    patience: int | None = None
    """Measurements without a better one before training ends; the best weights count then."""
    hang_timeout_seconds: float | None = 1800.0
    """As in `TrainingSpec`."""
    energy: EnergySpec = field(default_factory=EnergySpec)
    """Stated power and price."""
    mlflow_uri: str | None = None
    """As in `TrainingSpec`."""
    metrics_port: int | None = None
    """Port of the Prometheus endpoint."""
    part: Part | None = None
    """Its place among the stage's trainings. None when it is the only one."""
    started: float = field(default_factory=time.monotonic)
    """Clock at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training that reached its end."""

    state: TrainState
    """Where it stood; with patience, at its best measurement."""
    weights: Mapping[str, Tensor]
    """Full weights by the model's own names, adapters merged; empty but on the first process."""


def train_to_end(session: Session, group: ProcessGroup, stop: StopRequest) -> Trained | None:
    """Train, continuing from the newest saved state if there is one.

    Returns:
        The result, or None when a stop request ended it before the last step.

    Raises:
        CheckpointError: The saved state is of other settings or data.
        ConfigError: The settings do not fit the model, the data or the processes.
        DataError: Steps cannot be used.
    """
    if session.lora:
        trains_head = session.family in _NEW_HEADS
        add_adapters(session.model, session.lora, seed=session.seed, trains_head=trains_head)
    store = _open_store(session)
    is_failed = True
    try:
        state, engine = start_engine(
            lambda: _build_module(session, group),
            store,
            group,
            lambda module: build_engine(module, session.optimizer, session.parallelism, group),
        )
        with storage.explaining_full_disk(session.workspace.path):  # lines of the meters
            end = _run(session, engine, state, group, store=store, stop=stop)
        store.wait(group)
        trained = _collect(session, engine, end, group) if end.is_complete else None
        is_failed = False
    finally:
        store.close(is_failed=is_failed)
    return trained


def _run(
    session: Session,
    engine: Engine,
    state: TrainState,
    group: ProcessGroup,
    *,
    store: CheckpointStore,
    stop: StopRequest,
) -> End:
    """Run the loop with everything that works beside it."""
    if group.is_first:
        for name in METER_FILES:
            session.workspace.pull_file(name)
    planner = StepPlanner(session.source.lengths, session.order, tokens=session.batch.tokens)
    layout = _layout(session, group)
    micro_tokens = session.batch.micro_tokens
    validation = None
    if session.held_out_ids is not None and session.held_out_ids.size:
        validation = HeldOutLoss(
            session.source, session.held_out_ids, micro_tokens=micro_tokens, layout=layout
        )
    settings = LoopSettings(
        title=session.title,
        optimizer=session.optimizer,
        seed=session.seed,
        num_steps=session.num_steps,
        save_every_steps=session.save_every_steps,
        spikes=session.spikes,
        validate_every_steps=session.validate_every_steps,
        patience=session.patience,
    )
    with (
        Loader(
            session.source, planner, group_rank=group.rank, group_size=group.size,
            micro_tokens=micro_tokens, layout=layout,
        ) as loader,
        open_meters(
            session.workspace.path if group.is_first else None,
            name=session.title, work=_measure(session, group), step=state.step,
            metrics_port=session.metrics_port, mlflow_uri=session.mlflow_uri,
            energy=session.energy,
        ) as meters,
        Watchdog(session.hang_timeout_seconds, session.workspace.path) as watchdog,
    ):  # fmt: skip
        company = Company(
            store=store, stop=stop, meters=meters, watchdog=watchdog, validation=validation,
            best=_best_weights(session), flops=_count_flops(session),
        )  # fmt: skip
        return TrainingLoop(engine, loader, planner, settings, group, company).run(state)


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
        vocabulary_digest=_vocabulary_digest(session.tokenizer_folder),
        resources=read_usage(folder, session.energy),
    )
    published = publish(session.workspace, record)
    best = _best_weights(session)
    if best:
        best.clear()
    return published


def _vocabulary_digest(folder: Path) -> str:
    """Return the digest of a tokenizer's pieces; empty for models without texts."""
    has_text = any((folder / name).is_file() for name in TOKENIZER_FILES)
    return vocabulary_digest(read_pieces_of(folder)) if has_text else ""


def _open_store(session: Session) -> CheckpointStore:
    parents = enumerate(session.parents, start=1)
    return CheckpointStore(
        session.workspace,
        fingerprint={
            "settings": session.config_hash,
            **{f"{parent.kind} {number}": parent.digest for number, parent in parents},
        },
        keep_last=session.keep_last,
        keep_every_steps=session.keep_every_steps,
    )


def _build_module(session: Session, group: ProcessGroup) -> nn.Module:
    """Return the loss of the session's model, with dropout on: loaded models have it off."""
    module = build_loss(
        session.model,
        session.family,
        _layout(session, group),
        micro_tokens=session.batch.micro_tokens,
        checkpoints_activations=session.parallelism.activation_checkpointing,
    )
    return module.train()


def build_engine(
    module: nn.Module, optimizer: OptimizerSpec, parallelism: ParallelismSpec, group: ProcessGroup
) -> Engine:
    """Return the engine of a module that is whole on the first process at least.

    Raises:
        ConfigError: The device does not compute in the precision asked for.
    """
    precision = precision_of(parallelism, group.device)
    add_axes(module)
    if is_sharded(group, parallelism):
        shard(module, group, parallelism, precision)
    return Engine(module, optimizer, parallelism, precision)


def _layout(session: Session, group: ProcessGroup) -> Layout:
    architecture = session.model.config.model_type
    return session.batch.layout or default_layout(architecture, group.device.type, session.family)


def _measure(session: Session, group: ProcessGroup) -> Work:
    """Return what the training's share and speed are measured against."""
    device = describe_device(group.device)
    peak = peak_flops(device)
    return Work(
        num_steps=session.num_steps,
        num_parameters=count_parameters(session.model),
        num_devices=group.size,
        device=device or "cpu",
        peak_flops=peak * group.size if peak else None,
        part=session.part,
    )


def _count_flops(session: Session) -> FlopCounter | None:
    """Return what counts a step's FLOPs; None where the architecture is not counted."""
    config = session.model.config
    try:
        return FlopCounter.of(config.model_type, config.to_dict())
    except (ConfigError, UnknownNameError) as exc:
        _log.info("%s: model FLOPs are estimated: %s", session.title, exc)
        return None


def _best_weights(session: Session) -> BestWeights | None:
    if not session.patience:
        return None
    # States fall back by keep_last at most, each to a best step of its own.
    return BestWeights(session.workspace, num_kept=session.keep_last + 1)


def _collect(session: Session, engine: Engine, end: End, group: ProcessGroup) -> Trained:
    """Return the weights that count; all processes take part."""
    state, best = end.state, _best_weights(session)
    if best and end.best.loss is not None and end.best.step < state.step:
        weights = best.load(end.best.step) if group.is_first else {}
        state = state.model_copy(update={"step": end.best.step})
        _log.info("%s: the weights of step %d are the best", session.title, state.step)
    else:
        weights = gather_weights(engine, group)
    if session.lora:
        weights = merge_adapters(weights, session.lora, engine.module)
    return Trained(state=state, weights=plain_names(weights))
