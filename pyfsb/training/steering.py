# SPDX-License-Identifier: Apache-2.0
"""What follows from a step: counts it, is it measured and saved, does training go back or end.

The loop computes and asks; this remembers what it stands on beside the weights (gradient norms,
the best measurement, fp16's loss scale), which goes into each saved state. All processes decide
alike, for all see the same numbers. Never runs forward or backward for training.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from pyfsb.config import OptimizerSpec, SpikeSpec
from pyfsb.errors import CheckpointError, ConfigError, DataError
from pyfsb.processes import StopRequest
from pyfsb.training import restoring
from pyfsb.training.batching import StepPlan, StepPlanner
from pyfsb.training.best import BestWeights
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.deepspeed import Engine, Update
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.flops import FlopCounter
from pyfsb.training.fragments import named_weights
from pyfsb.training.meters import Meters
from pyfsb.training.spikes import GuardState, SpikeGuard, Verdict
from pyfsb.training.timing import StepTimer
from pyfsb.training.validation import BestSoFar, Validation
from pyfsb.training.watchdog import Watchdog

_NUM_SHOWN_SAMPLES: Final = 16
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


class Steering:
    """Decides after each step of one training."""

    def __init__(
        self,
        engine: Engine,
        settings: LoopSettings,
        group: ProcessGroup,
        company: Company,
        timer: StepTimer,
    ) -> None:
        """Stand at the beginning; `recall` goes to a saved state."""
        self._engine = engine
        self._settings = settings
        self._group = group
        self._company = company
        self._timer = timer
        self._guard = self._guard_at(GuardState())
        self.best = BestSoFar()
        """The best measurement so far."""

    @property
    def is_over(self) -> bool:
        """Whether training ends before its last step."""
        return self.best.is_over(self._settings.patience)

    def accepts(self, loss: float, norm: float) -> bool:
        """Say whether a step may change the weights."""
        return self._guard.accepts(loss, norm)

    def is_due(self, state: TrainState) -> bool:
        """Say whether the held-out samples are measured after this step."""
        if self._company.validation is None:
            return False
        every = self._settings.validate_every_steps
        return state.step == self._settings.num_steps or bool(every and state.step % every == 0)

    def judge(self, state: TrainState, plan: StepPlan, loss: float, update: Update) -> Verdict:
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
            self._say(
                logging.INFO,
                "step %d: gradients beyond fp16, not used; loss scale now %s",
                state.step,
                scale,
            )
            return verdict
        text = (
            f"step {state.step} is left out: loss {loss:.6g}, gradient norm "
            f"{update.gradient_norm:.6g} (limit {limit:.6g}); {describe_samples(plan)}"
        )
        self._say(logging.WARNING, "%s", text)
        if verdict is Verdict.FAIL:
            raise DataError(
                f"{text}; {self._settings.spikes.max_rewinds} returns to a saved state did not "
                "help: lower optimizer.learning_rate, or look at these samples"
            )
        return verdict

    def rewind(self, state: TrainState, plan: StepPlan) -> TrainState:
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
        self._say(
            logging.WARNING,
            "back from step %d to the state of step %d; on after sample %d of epoch %d, %d samples "
            "are left out",
            state.step, saved.step, state.offset, state.epoch, num_lost,
        )  # fmt: skip
        guard = self._guard
        self.recall(saved)
        guard.rewound(self._guard.state)
        self._guard = guard
        if company.meters:
            company.meters.rewind(saved.step)
        return saved.model_copy(update={"epoch": state.epoch, "offset": state.offset})

    def measure(self, state: TrainState) -> tuple[float | None, bool]:
        """Measure on held-out samples and keep the best weights; returns value and is it best."""
        company = self._company
        if company.validation is None:
            return None, False
        with self._timer.part("validation"):
            value = company.validation.measure(self._engine, self._group)
        self.best = self.best.after(value, state.step)
        is_best = self.best.step == state.step
        self._say(
            logging.INFO,
            "step %d: validation loss %.6g, best %.6g of step %d",
            state.step, value, self.best.loss, self.best.step,
        )  # fmt: skip
        if is_best and self._settings.patience and company.best:
            with self._timer.part("checkpoint"):
                weights = ((n, v) for n, v in named_weights(self._engine) if self._group.is_first)
                kept = list(weights)  # all processes take part in gathering
                if self._group.is_first:
                    company.best.keep(kept, state.step)
        return value, is_best and self._settings.patience is not None

    def postpone(self, *, is_due: bool) -> None:
        """Remember whether a measurement is due that a stop leaves no time for."""
        self.best = self.best.model_copy(update={"is_due": is_due})

    def save(self, state: TrainState, *, waits: bool = False) -> None:
        """Save a state, but none amid bad steps: it would be the one to go back to.

        What continues from the one before comes by the same steps again.
        """
        if self._guard.state.num_skipped:
            return
        with self._timer.part("checkpoint"):
            self._company.store.save(self._engine, self.remember(state), self._group, waits=waits)

    def remember(self, state: TrainState) -> TrainState:
        """Return a state with what else the loop stands on."""
        guard = {
            "spikes": self._guard.state.to_json(),
            "loss_scale": self._engine.loss_scale_state(),
            "validation": self.best.to_json(),
        }
        return state.model_copy(update={"guard": guard})

    def recall(self, state: TrainState) -> None:
        """Stand where a saved state stood."""
        guard = state.guard
        self._guard = self._guard_at(GuardState.model_validate(guard.get("spikes", {})))
        self.best = BestSoFar.model_validate(guard.get("validation", {}))
        if guard.get("loss_scale"):
            self._engine.set_loss_scale_state(guard["loss_scale"])

    def _guard_at(self, state: GuardState) -> SpikeGuard:
        settings = self._settings
        return SpikeGuard(settings.spikes, state, clip_norm=settings.optimizer.max_gradient_norm)

    def _say(self, level: int, text: str, *values: object) -> None:
        """Log a line, on the first process only: all of them come to the same verdicts."""
        if self._group.is_first:
            _log.log(level, f"%s: {text}", self._settings.title, *values)


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
