# SPDX-License-Identifier: Apache-2.0
"""The training loop: one for pretraining and fine-tuning, on one process or many.

Each step: load the samples, forward and backward, judge, one optimizer step, tell. The loss is the
sum over targets divided by the number of targets of all processes, so equal batches give equal
curves for any number of processes. Dropout is seeded by (seed, step, micro-step, rank): continuing
is bit-equal and needs no generator state. Called by `session`; never writes a file by itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pyfsb.config import OptimizerSpec, SpikeSpec
from pyfsb.errors import CheckpointError, ConfigError, DataError
from pyfsb.processes import StopRequest
from pyfsb.seeding import hash64
from pyfsb.training import restoring
from pyfsb.training.batching import StepPlan, StepPlanner
from pyfsb.training.best import BestWeights
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.deepspeed import Engine, Update
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.flops import FlopCounter
from pyfsb.training.fragments import named_weights
from pyfsb.training.loader import LoadedStep, Loader
from pyfsb.training.meters import Meters, StepOutcome
from pyfsb.training.optim import learning_rate
from pyfsb.training.spikes import GuardState, SpikeGuard, Verdict
from pyfsb.training.timing import StepTimer
from pyfsb.training.validation import BestSoFar, Validation
from pyfsb.training.watchdog import Watchdog

_DROPOUT = 7
_NUM_SHOWN_SAMPLES = 16
_ON_HOST = ("lengths", "decoder_lengths")
"""Inputs that the models read on the host: moved, each would stop the device once."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What the loop needs of the run spec."""

    title: str
    """Name on log lines."""
    optimizer: OptimizerSpec
    seed: int
    num_steps: int
    """Steps of the whole training."""
    save_every_steps: int
    spikes: SpikeSpec
    validate_every_steps: int | None = None
    """None measures once, at the end."""
    patience: int | None = None
    """Measurements without a better one before the end; None keeps no best weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """What works beside the loop; all but the store may be missing."""

    store: CheckpointStore
    """Receives a state every `save_every_steps`, at the end and on a stop."""
    stop: StopRequest
    """A request to save and end."""
    meters: Meters | None = None
    """Of the first process."""
    watchdog: Watchdog | None = None
    validation: Validation | None = None
    best: BestWeights | None = None
    """Keeps the weights of the best measurement; needed with patience."""
    flops: FlopCounter | None = None


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
        self._guard = SpikeGuard(settings.spikes)
        self._best = BestSoFar()

    def run(self, state: TrainState) -> End:
        """Train from a state to the last step, an early end, or the step after a stop request.

        Raises:
            ConfigError: A step has fewer samples than there are processes.
            DataError: Steps cannot be used, and going back did not help; names their samples.
            StorageError: States could not be saved for longer than the store's patience.
        """
        self._recall(state)
        check_feeds(self._planner, self._group.size, state)
        if self._best.is_due:  # a stop came between a step and its measurement
            self._measure(state)
        is_saved, is_stopping = True, False
        while state.step < self._settings.num_steps and not self._is_over():
            state, is_saved, is_stopping = self._advance(state)
            if is_stopping:
                break
        if not is_saved:
            self._save(state)
        end = self._remember(state)
        return End(state=end, best=self._best, is_complete=not is_stopping)

    def _advance(self, state: TrainState) -> tuple[TrainState, bool, bool]:
        """Take one step; returns the new state, whether it is saved and whether to stop."""
        with self._timer.part("data"):
            loaded = self._loader.load(state.position)
        plan = loaded.plan
        num_targets, num_tokens, num_stops = self._group.sum(
            (
                sum(batch.num_targets for batch, _ in loaded.batches),
                sum(batch.num_tokens for batch, is_real in loaded.batches if is_real),
                self._company.stop.signal_number is not None,
            )
        )
        rate = learning_rate(
            self._settings.optimizer, step=state.step, num_steps=self._settings.num_steps
        )
        with self._timer.part("compute"):
            loss = self._accumulate(loaded, state.step, max(1.0, num_targets))
            update = self._engine.step(rate, partial(self._guard.accepts, loss))
        following = state.model_copy(
            update={
                "step": state.step + 1,
                "epoch": plan.next.epoch,
                "offset": plan.next.offset,
                "num_samples": state.num_samples + plan.sample_ids.size,
                "num_tokens": state.num_tokens + round(num_tokens),
            }
        )
        verdict = self._judge(following, plan, loss, update)
        is_stopping = num_stops > 0
        is_due = self._is_due(following)
        measured: float | None = None
        is_best = False
        if is_due and not is_stopping and verdict is not Verdict.REWIND:
            measured, is_best = self._measure(following)
        self._tell(following, plan, loss, update, rate, (num_targets, num_tokens), measured)
        if verdict is Verdict.REWIND:
            following = self._rewind(following, plan)
            return following, False, is_stopping
        if is_stopping:
            self._best = self._best.model_copy(update={"is_due": is_due})
        is_saved = is_best or is_stopping or following.step % self._settings.save_every_steps == 0
        if is_saved:
            self._save(following, waits=is_stopping)
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
            # DeepSpeed averages over processes; the loss is to be a sum over all of them.
            self._engine.backward(loss * (is_real * group.size / num_targets))
        return group.sum([float(loss_sum)])[0] / num_targets

    def _place(self, name: str, value: Tensor) -> Tensor:
        is_host = name in _ON_HOST
        return value if is_host else value.to(self._group.device, non_blocking=True)

    def _judge(self, state: TrainState, plan: StepPlan, loss: float, update: Update) -> Verdict:
        """Say what follows from a step, with a line in the log where it is left out.

        Raises:
            DataError: Going back did not help.
        """
        limit = self._guard.limit
        verdict = self._guard.note(loss, update.gradient_norm, is_overflow=update.is_overflow)
        if verdict is Verdict.ACCEPT:
            return verdict
        if update.is_overflow and verdict is Verdict.SKIP:
            scale = self._engine.loss_scale_state().get("cur_scale")
            _log.info(
                "%s: step %d: gradients beyond fp16, not used; loss scale now %s",
                self._settings.title, state.step, scale,
            )  # fmt: skip
            return verdict
        text = (
            f"step {state.step} is left out: loss {loss:.6g}, gradient norm "
            f"{update.gradient_norm:.6g} (limit {limit:.6g}); {describe_samples(plan)}"
        )
        _log.warning("%s: %s", self._settings.title, text)
        if verdict is Verdict.FAIL:
            raise DataError(
                f"{text}; {self._settings.spikes.max_rewinds} returns to a saved state did not "
                "help: lower optimizer.learning_rate, or look at these samples"
            )
        return verdict

    def _rewind(self, state: TrainState, plan: StepPlan) -> TrainState:
        """Go back to the last saved state, and on from behind the samples that did not work.

        Source: Chowdhery et al. 2022, section 5.1: what was seen before a spike and during it is
        not seen again; weights are, so the same samples would lead to the same place.

        Raises:
            DataError: There is no saved state.
        """
        company = self._company
        try:
            with self._timer.part("checkpoint"):
                saved = restoring.rewind(self._engine, company.store, self._group)
        except CheckpointError as exc:
            raise DataError(
                f"step {state.step}: {self._settings.spikes.max_skipped_steps} steps in a row "
                f"could not be used ({describe_samples(plan)}), and there is no state to go back "
                f"to: {exc}; lower optimizer.learning_rate, or look at these samples"
            ) from None
        num_lost = state.num_samples - saved.num_samples
        _log.warning(
            "%s: back from step %d to the state of step %d; on after sample %d of epoch %d, %d "
            "samples are left out",
            self._settings.title, state.step, saved.step, state.offset, state.epoch, num_lost,
        )  # fmt: skip
        guard = self._guard
        self._recall(saved)
        guard.rewound(self._guard.state)
        self._guard = guard
        if company.meters:
            company.meters.rewind(saved.step)
        return saved.model_copy(update={"epoch": state.epoch, "offset": state.offset})

    def _is_over(self) -> bool:
        return self._best.is_over(self._settings.patience)

    def _is_due(self, state: TrainState) -> bool:
        """Say whether the held-out samples are measured after this step."""
        if self._company.validation is None:
            return False
        every = self._settings.validate_every_steps
        return state.step == self._settings.num_steps or bool(every and state.step % every == 0)

    def _measure(self, state: TrainState) -> tuple[float | None, bool]:
        """Measure on held-out samples and keep the best weights; returns value and is it best."""
        company = self._company
        if company.validation is None:
            return None, False
        with self._timer.part("validation"):
            value = company.validation.measure(self._engine, self._group)
        self._best = self._best.after(value, state.step)
        is_best = self._best.step == state.step
        _log.info(
            "%s: step %d: validation loss %.6g, best %s of step %d",
            self._settings.title, state.step, value, self._best.loss, self._best.step,
        )  # fmt: skip
        if is_best and self._settings.patience and company.best:
            with self._timer.part("checkpoint"):
                weights = ((n, v) for n, v in named_weights(self._engine) if self._group.is_first)
                kept = list(weights)  # all processes take part in gathering
                if self._group.is_first:
                    company.best.keep(kept, state.step)
        return value, is_best and self._settings.patience is not None

    def _save(self, state: TrainState, *, waits: bool = False) -> None:
        """Save a state, but none amid bad steps: it would be the one to go back to.

        What continues from the one before comes by the same steps again.
        """
        if self._guard.state.num_skipped:
            return
        with self._timer.part("checkpoint"):
            self._company.store.save(self._engine, self._remember(state), self._group, waits=waits)

    def _remember(self, state: TrainState) -> TrainState:
        """Return a state with what else the loop stands on."""
        guard = {
            "spikes": self._guard.state.to_json(),
            "loss_scale": self._engine.loss_scale_state(),
            "validation": self._best.to_json(),
        }
        return state.model_copy(update={"guard": guard})

    def _recall(self, state: TrainState) -> None:
        """Stand where a saved state stood."""
        guard = state.guard
        self._guard = SpikeGuard(
            self._settings.spikes, GuardState.model_validate(guard.get("spikes", {}))
        )
        self._best = BestSoFar.model_validate(guard.get("validation", {}))
        if guard.get("loss_scale"):
            self._engine.set_loss_scale_state(guard["loss_scale"])

    def _tell(
        self,
        state: TrainState,
        plan: StepPlan,
        loss: float,
        update: Update,
        rate: float,
        counts: tuple[float, float],
        measured: float | None,
    ) -> None:
        company, parts = self._company, self._timer.take()
        if company.watchdog:
            company.watchdog.beat(state.step)
        if company.meters is None:
            return
        num_targets, num_tokens = (round(count) for count in counts)
        flops = company.flops
        lengths = self._planner.lengths_of(plan.sample_ids) if flops else None
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
                num_flops=flops.count(lengths, num_targets) if flops and lengths is not None else 0,
                seconds=parts.seconds,
                data_seconds=parts.data_seconds,
                communication_seconds=parts.communication_seconds,
                checkpoint_seconds=parts.checkpoint_seconds,
                is_skipped=not update.is_applied,
                validation_loss=measured,
            )
        )


def check_feeds(planner: StepPlanner, num_processes: int, state: TrainState) -> None:
    """Refuse more processes than a step has samples; a set that is one step anyway may be small.

    Raises:
        ConfigError: Says how many processes would do.
    """
    plan = planner.plan(state.position)
    num_samples = plan.sample_ids.size
    if num_samples >= num_processes or plan.next.epoch > plan.epoch:
        return
    raise ConfigError(
        f"{num_processes} processes, but a step of batch.tokens holds {num_samples} samples: some "
        f"would have nothing to do; take at most {num_samples} processes, or batch.tokens at "
        f"least {-(-num_processes // num_samples)} times as large"
    )


def describe_samples(plan: StepPlan) -> str:
    """Return which samples a step had, the first ones by number."""
    shown = ", ".join(map(str, plan.sample_ids[:_NUM_SHOWN_SAMPLES].tolist()))
    rest = plan.sample_ids.size - _NUM_SHOWN_SAMPLES
    more = f" and {rest} more" if rest > 0 else ""
    return f"samples {shown}{more} of epoch {plan.epoch}"
