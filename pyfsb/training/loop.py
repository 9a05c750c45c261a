# SPDX-License-Identifier: Apache-2.0
"""The training loop: one for pretraining and fine-tuning, on one process or many.

Each step: load the samples, forward and backward, judge, one optimizer step, tell. The loss is the
sum over targets divided by the number of targets of all processes, so equal batches give equal
curves for any number of processes. Dropout is seeded by (seed, step, micro-step, rank): continuing
is bit-equal and needs no generator state. Called by `session`; never writes a file by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from pyfsb.seeding import hash64
from pyfsb.training.batching import StepPlan, StepPlanner
from pyfsb.training.checkpoint import TrainState
from pyfsb.training.counting import count_step_flops
from pyfsb.training.deepspeed import Engine, Update
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.loader import LoadedStep, Loader
from pyfsb.training.meters import StepOutcome
from pyfsb.training.optim import learning_rate
from pyfsb.training.spikes import Verdict
from pyfsb.training.steering import Company, LoopSettings, Steering, check_feeds
from pyfsb.training.timing import StepTimer
from pyfsb.training.validation import BestSoFar

_DROPOUT: Final = 7
_ON_HOST: Final = ("lengths", "decoder_lengths")
"""Inputs that the models read on the host: moved, each would stop the device once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a training stands when the loop returns; the state is saved, or about to be."""

    state: TrainState
    best: BestSoFar
    is_complete: bool
    """False when a stop request ended it."""


class TrainingLoop:
    """Trains an engine from a state to the last step."""

    def __init__(
        self,
        engine: Engine,
        loader: Loader,
        planner: StepPlanner,
        settings: LoopSettings,
        group: ProcessGroup,
        company: Company,
    ) -> None:
        """Put the parts together.

        Args:
            engine: Module and optimizer, standing at the state that `run` is given.
            loader: This process's part of each step.
            planner: Knows the lengths of samples.
            settings: Lengths, sizes and rates.
            group: The processes that train together; all see the same stop.
            company: What works beside the loop.
        """
        self._engine = engine
        self._loader = loader
        self._planner = planner
        self._settings = settings
        self._group = group
        self._company = company
        self._timer = StepTimer()
        self._steering = Steering(engine, settings, group, company, self._timer)

    def run(self, state: TrainState) -> End:
        """Train from a state to the last step, an early end, or the step after a stop request.

        Raises:
            ConfigError: A step has fewer samples than there are processes.
            DataError: Steps cannot be used, and going back did not help; names their samples.
            StorageError: States could not be saved for longer than the store's patience.
        """
        self._steering.recall(state)
        check_feeds(self._planner, self._group.size, state)
        if self._steering.best.is_due:  # a stop came between a step and its measurement
            self._steering.measure(state)
        is_saved, is_stopping = True, False
        while state.step < self._settings.num_steps and not self._steering.is_over:
            state, is_saved, is_stopping = self._advance(state)
            if is_stopping:
                break
        if not is_saved:
            self._steering.save(state)
        remembered, best = self._steering.remember(state), self._steering.best
        return End(state=remembered, best=best, is_complete=not is_stopping)

    def _advance(self, state: TrainState) -> tuple[TrainState, bool, bool]:
        """Take one step; returns the new state, whether it is saved and whether to stop."""
        steering = self._steering
        with self._timer.part("data"):
            loaded = self._loader.load(state.position)
        plan, settings = loaded.plan, self._settings
        num_targets, num_tokens, num_stops, num_flops = self._group.sum(
            (
                sum(batch.num_targets for batch, _ in loaded.batches),
                sum(batch.num_tokens for batch, is_real in loaded.batches if is_real),
                self._company.stop.signal_number is not None,
                count_step_flops(self._company.flops, loaded, self._planner, self._group.size),
            )
        )
        rate = learning_rate(settings.optimizer, step=state.step, num_steps=settings.num_steps)
        with self._timer.part("compute"):
            loss = self._accumulate(loaded, state.step, max(1.0, num_targets))
            update = self._engine.step(rate, partial(steering.accepts, loss))
        following = state.model_copy(
            update={
                "step": state.step + 1,
                "epoch": plan.next.epoch,
                "offset": plan.next.offset,
                "num_samples": state.num_samples + plan.sample_ids.size,
                "num_tokens": state.num_tokens + round(num_tokens),
            }
        )
        verdict = steering.judge(following, plan, loss, update)
        is_stopping = num_stops > 0
        is_due, is_best = steering.is_due(following), False
        measured: float | None = None
        if is_due and not is_stopping and verdict is not Verdict.REWIND:
            measured, is_best = steering.measure(following)
        counts = (num_targets, num_tokens, num_flops)
        self._tell(following, plan, loss, update, rate, counts, measured)
        if verdict is Verdict.REWIND:
            following = steering.rewind(following, plan)
            return following, False, is_stopping
        if is_stopping:
            steering.postpone(is_due=is_due)
        is_saved = is_best or is_stopping or following.step % self._settings.save_every_steps == 0
        if is_saved:
            steering.save(following, waits=is_stopping)
        return following, is_saved, is_stopping

    def _accumulate(self, loaded: LoadedStep, step: int, num_targets: float) -> float:
        """Run forward and backward over this process's micro-batches; returns the mean loss."""
        group = self._group
        loss_sum = torch.zeros((), dtype=torch.float64, device=group.device)
        for micro_step, (batch, is_real) in enumerate(loaded.batches):
            key = hash64(self._settings.seed, _DROPOUT, step, micro_step, group.rank)
            torch.manual_seed(int(key) >> 1)
            loss = self._engine(**{n: self._place(n, v) for n, v in batch.inputs.items()})
            loss_sum += loss.detach().double() * is_real
            # DeepSpeed averages over processes; the loss is a sum over all of them.
            self._engine.backward(loss * (is_real * group.size / num_targets))
        return group.sum([float(loss_sum)])[0] / num_targets

    def _place(self, name: str, value: Tensor) -> Tensor:
        is_host = name in _ON_HOST
        return value if is_host else value.to(self._group.device, non_blocking=True)

    def _tell(
        self,
        state: TrainState,
        plan: StepPlan,
        loss: float,
        update: Update,
        rate: float,
        counts: tuple[float, float, float],
        measured: float | None,
    ) -> None:
        company, parts = self._company, self._timer.take()
        if company.watchdog:
            company.watchdog.beat(state.step)
        if company.meters is None:
            return
        num_targets, num_tokens = (round(count) for count in counts[:2])
        company.meters.record(
            StepOutcome(
                step=state.step,
                loss=loss,
                gradient_norm=update.gradient_norm,
                learning_rate=rate,
                epoch=plan.epoch,
                num_samples=state.num_samples,
                num_tokens=state.num_tokens,
                num_targets=num_targets,
                num_step_tokens=num_tokens,
                num_step_samples=plan.sample_ids.size,
                num_flops=counts[2],
                seconds=parts.seconds,
                data_seconds=parts.data_seconds,
                communication_seconds=parts.communication_seconds,
                checkpoint_seconds=parts.checkpoint_seconds,
                is_skipped=not update.is_applied,
                validation_loss=measured,
            )
        )
