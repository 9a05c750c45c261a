# SPDX-License-Identifier: Apache-2.0
"""The training loop: one for pretraining and fine-tuning, on one process or many.

Each step: plan which samples, share them out, forward and backward, one optimizer step, tell.
The loss is the sum over targets divided by the number of targets of all processes, so equal
batches give equal curves for any number of processes. Dropout is seeded by (seed, step,
micro-step, rank): continuing is bit-equal and needs no generator state.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from pyfsb.config import BatchSpec, OptimizerSpec
from pyfsb.errors import DataError
from pyfsb.processes import StopRequest
from pyfsb.seeding import hash64
from pyfsb.training.batching import StepPlan, StepPlanner, share_out
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.meters import Meters, StepMetrics
from pyfsb.training.optim import learning_rate
from pyfsb.training.protocol import Batch, SampleSource

_DROPOUT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What the loop needs of the run spec."""

    optimizer: OptimizerSpec
    batch: BatchSpec
    seed: int
    num_steps: int
    """Steps of the whole training."""
    save_every_steps: int


def train(
    engine: Engine,
    source: SampleSource,
    settings: LoopSettings,
    state: TrainState,
    group: ProcessGroup,
    *,
    store: CheckpointStore,
    meters: Meters | None,
    stop: StopRequest,
) -> TrainState:
    """Train from a state to the last step, or to the step after a stop request.

    Args:
        engine: Module and optimizer, standing at `state`.
        source: The samples.
        settings: Lengths, sizes and rates.
        state: Where to begin.
        group: The processes that train together; all see the same stop.
        store: Receives a state every `save_every_steps`, at the end and on a stop.
        meters: Of the first process.
        stop: A request to save and end.

    Returns:
        The state reached; it is saved.

    Raises:
        DataError: The loss is not a number; names the step and its samples.
    """
    planner = StepPlanner(source.lengths, tokens=settings.batch.tokens, seed=settings.seed)
    is_saved = True
    while state.step < settings.num_steps:
        state, is_stopping = _take_step(
            engine, source, settings, state, group, planner=planner, meters=meters, stop=stop
        )
        is_saved = False
        if is_stopping or state.step % settings.save_every_steps == 0:
            store.save(engine, state, group)
            is_saved = True
        if is_stopping:
            break
    if not is_saved:
        store.save(engine, state, group)
    return state


def _take_step(
    engine: Engine,
    source: SampleSource,
    settings: LoopSettings,
    state: TrainState,
    group: ProcessGroup,
    *,
    planner: StepPlanner,
    meters: Meters | None,
    stop: StopRequest,
) -> tuple[TrainState, bool]:
    """Take one optimizer step; returns the new state and whether any process was told to stop."""
    started = time.monotonic()
    plan = planner.plan(state.position)
    batches = _collate(source, plan, settings, group)
    num_targets, num_tokens, num_stops = group.sum(
        (
            sum(batch.num_targets for batch, _ in batches),
            sum(batch.num_tokens for batch, is_real in batches if is_real),
            stop.signal_number is not None,
        )
    )
    loss_sum = torch.zeros((), dtype=torch.float64)
    for micro_step, (batch, is_real) in enumerate(batches):
        key = hash64(settings.seed, _DROPOUT, state.step, micro_step, group.rank)
        torch.manual_seed(int(key) >> 1)
        loss = engine(**{name: value.to(group.device) for name, value in batch.inputs.items()})
        loss_sum += loss.detach().double().cpu() * is_real
        # DeepSpeed averages over processes; the loss is to be a sum over all of them.
        engine.backward(loss * (is_real * group.size / max(1.0, num_targets)))
    rate = learning_rate(settings.optimizer, step=state.step, num_steps=settings.num_steps)
    gradient_norm = engine.step(rate)
    mean_loss = group.sum([float(loss_sum)])[0] / max(1.0, num_targets)
    _check_finite(mean_loss, gradient_norm, state, plan)
    following = TrainState(
        step=state.step + 1,
        epoch=plan.next.epoch,
        offset=plan.next.offset,
        num_samples=state.num_samples + plan.sample_ids.size,
        num_tokens=state.num_tokens + round(num_tokens),
    )
    if meters:
        seconds = time.monotonic() - started
        meters.record(
            StepMetrics(
                step=following.step,
                loss=mean_loss,
                gradient_norm=gradient_norm,
                learning_rate=rate,
                epoch=plan.epoch,
                num_samples=following.num_samples,
                num_tokens=following.num_tokens,
                num_targets=round(num_targets),
                seconds=round(seconds, 6),
                tokens_per_second=round(num_tokens / seconds, 1),
            )
        )
    return following, num_stops > 0


def _collate(
    source: SampleSource, plan: StepPlan, settings: LoopSettings, group: ProcessGroup
) -> list[tuple[Batch, bool]]:
    """Return this process's micro-batches and whether each is real.

    All processes must take the same number of micro-steps; one that has nothing left computes on
    the step's first sample and counts it as nothing.
    """
    slices = share_out(
        source.lengths[plan.sample_ids],
        num_processes=group.size,
        micro_tokens=settings.batch.micro_tokens,
    )[group.rank]
    batches = []
    for rows in slices:
        is_real = rows.size > 0
        batch = source.collate(plan.sample_ids[rows if is_real else [0]], plan.epoch)
        if not is_real:
            batch = Batch(inputs=batch.inputs, num_targets=0, num_tokens=0)
        batches.append((batch, is_real))
    return batches


def _check_finite(loss: float, norm: float, state: TrainState, plan: StepPlan) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    shown = ", ".join(map(str, plan.sample_ids[:8].tolist()))
    raise DataError(
        f"step {state.step + 1}: loss {loss}, gradient norm {norm}; samples {shown} … of epoch "
        f"{plan.epoch}; lower optimizer.learning_rate, or look at these samples. The last saved "
        "state is from before it"
    )
