# SPDX-License-Identifier: Apache-2.0
"""Which steps may change the weights: losses that are no number and gradient spikes may not.

The loop asks before every update and acts on the verdict. Pure: knows no tensors and no files, and
every process comes to the same verdict because they all see the same loss and norm.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from enum import StrEnum
from typing import Final

from pyfsb.config import SpikeSpec
from pyfsb.schema import Schema

MIN_OVERFLOWS: Final = 32
"""fp16 steps lost in a row to loss scaling before the samples or the rate must be at fault: from
2^16 to 1 it takes 17."""


class Verdict(StrEnum):
    """What follows from a step."""

    ACCEPT = "accept"
    """Its update counts."""
    SKIP = "skip"
    """Left out; training goes on with the next samples."""
    REWIND = "rewind"
    """Left out, as those before it: go back to the last saved state."""
    FAIL = "fail"
    """Going back did not help."""


class GuardState(Schema):
    """What a guard remembers; goes into the training state."""

    norms: tuple[float, ...] = ()
    """Gradient norms of the last accepted steps, oldest first."""
    num_skipped: int = 0
    """Steps left out in a row."""
    num_overflows: int = 0
    """Steps lost in a row while fp16's loss scale went down."""
    num_rewinds: int = 0
    """Times that training went back."""


class SpikeGuard:
    """Judges steps by what the steps before them were like."""

    def __init__(
        self, spec: SpikeSpec, state: GuardState | None = None, *, clip_norm: float = 0.0
    ) -> None:
        """Stand at a state.

        Args:
            spec: Limits.
            state: From `state`; None has seen nothing.
            clip_norm: Norm that gradients are clipped to: no step below it is a spike.
        """
        self._spec = spec
        self._clip_norm = clip_norm
        state = state or GuardState()
        self._norms = deque(state.norms, maxlen=spec.num_reference_steps)
        self._num_skipped = state.num_skipped
        self._num_overflows = state.num_overflows
        self._num_rewinds = state.num_rewinds

    @property
    def state(self) -> GuardState:
        """What to continue from."""
        return GuardState(
            norms=tuple(self._norms),
            num_skipped=self._num_skipped,
            num_overflows=self._num_overflows,
            num_rewinds=self._num_rewinds,
        )

    @property
    def limit(self) -> float:
        """The highest norm that is accepted; infinite before enough steps were seen.

        Source: our choice: the median moves with training and no spike moves the median. What
        clipping leaves as it is does no harm, however calm the steps before it were: a fine-tuning
        that knows its rows by heart has medians near zero.
        """
        ratio = self._spec.max_norm_ratio
        if ratio is None or len(self._norms) < self._spec.num_reference_steps:
            return math.inf
        return max(ratio * statistics.median(self._norms), self._clip_norm)

    def accepts(self, loss: float, norm: float) -> bool:
        """Say whether a step may change the weights; changes nothing."""
        return math.isfinite(loss) and math.isfinite(norm) and norm <= self.limit

    def note(self, loss: float, norm: float, *, is_overflow: bool = False) -> Verdict:
        """Remember a step and say what follows.

        Args:
            loss: Mean loss.
            norm: Gradient norm before clipping.
            is_overflow: The norm is no number because fp16's loss scale was too high.
        """
        if is_overflow and math.isfinite(loss):
            self._num_overflows += 1
            return Verdict.SKIP if self._num_overflows < MIN_OVERFLOWS else self._give_up()
        if self.accepts(loss, norm):
            self._norms.append(norm)
            self._num_skipped = self._num_overflows = 0
            return Verdict.ACCEPT
        self._num_skipped += 1
        if self._num_skipped < self._spec.max_skipped_steps:
            return Verdict.SKIP
        return self._give_up()

    def rewound(self, saved: GuardState) -> None:
        """Stand at a saved state again; rewinds go on counting."""
        self._norms = deque(saved.norms, maxlen=self._spec.num_reference_steps)
        self._num_skipped = self._num_overflows = 0
        self._num_rewinds = max(self._num_rewinds, saved.num_rewinds) + 1

    def _give_up(self) -> Verdict:
        is_left = self._num_rewinds < self._spec.max_rewinds
        return Verdict.REWIND if is_left else Verdict.FAIL
