# SPDX-License-Identifier: Apache-2.0
"""Which samples a step trains on, and who takes which of them.

The order of samples is a keyed shuffle of (seed, epoch) and a step takes the next samples that fit
its token budget, so what a step sees depends on the position in the data alone: not on the number
of processes, not on when the run was stopped. Steps never cross an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb.seeding import permute

Ints: TypeAlias = NDArray[np.int64]
_BLOCK_SAMPLES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the endless sequence of samples."""

    epoch: int = 0
    """Passes completed."""
    offset: int = 0
    """Samples of this pass that were taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """The samples of one optimizer step."""

    sample_ids: Ints
    """Numbers of the samples, in the order of the shuffle."""
    epoch: int
    """Pass they are of."""
    next: Position
    """Where the following step begins."""


class StepPlanner:
    """Cuts the shuffled sequence into steps of about equal tokens."""

    def __init__(self, lengths: Ints, *, tokens: int, seed: int) -> None:
        """Keep the sample lengths.

        Args:
            lengths: Tokens of each sample, special tokens included.
            tokens: Token budget of a step; a longer sample makes a step of its own.
            seed: Of the shuffle.
        """
        self._lengths = lengths
        self._tokens = tokens
        self._seed = seed

    def plan(self, position: Position) -> StepPlan:
        """Return the step that begins at a position, in O(samples of the step)."""
        size = self._lengths.size
        taken: list[Ints] = []
        offset, budget = position.offset, self._tokens
        while offset < size:
            stop = min(size, offset + _BLOCK_SAMPLES)
            block = permute(np.arange(offset, stop), size, self._seed, position.epoch)
            used = np.cumsum(self._lengths[block])
            num_fitting = int(np.searchsorted(used, budget, side="right"))
            if not taken and not num_fitting:
                num_fitting = 1
            taken.append(block[:num_fitting])
            offset += num_fitting
            if num_fitting < block.size:
                break
            budget -= int(used[-1])
        following = Position(epoch=position.epoch, offset=offset)
        if offset >= size:
            following = Position(epoch=position.epoch + 1)
        return StepPlan(sample_ids=np.concatenate(taken), epoch=position.epoch, next=following)

    def count_steps(self, num_epochs: int) -> int:
        """Return the number of steps of whole passes."""
        return sum(sum(1 for _ in self._steps(epoch)) for epoch in range(num_epochs))

    def _steps(self, epoch: int) -> Iterator[StepPlan]:
        position = Position(epoch=epoch)
        while position.epoch == epoch:
            step = self.plan(position)
            yield step
            position = step.next


def share_out(lengths: Ints, *, num_processes: int, micro_tokens: int) -> list[list[Ints]]:
    """Share the samples of a step out to processes and micro-steps.

    Samples are sorted by length and cut into as many slices of about equal tokens as there are
    micro-steps, so that rows of one slice need little padding; slices are dealt out in turn.

    Args:
        lengths: Tokens of each sample of the step.
        num_processes: Processes; all get the same number of slices.
        micro_tokens: Padded tokens of a slice at most, unless one sample alone is longer.

    Returns:
        For each process its slices, each an array of indices into `lengths` (it may be empty).
    """
    order = np.argsort(-lengths, kind="stable")
    sorted_lengths = lengths[order]
    ends = np.cumsum(sorted_lengths)
    num_micro = max(1, -(-int(ends[-1]) // (num_processes * micro_tokens)))
    while True:
        num_slices = num_micro * num_processes
        shares = np.arange(1, num_slices) * (ends[-1] / num_slices)
        cuts = np.concatenate(([0], np.searchsorted(ends, shares, side="left") + 1, [ends.size]))
        cuts = np.minimum(np.maximum.accumulate(cuts), ends.size)
        sizes = np.diff(cuts)
        firsts = np.minimum(cuts[:-1], ends.size - 1)
        padded = sizes * sorted_lengths[firsts]
        if not np.any((padded > micro_tokens) & (sizes > 1)):
            break
        num_micro += 1
    slices = [order[start:stop] for start, stop in pairwise(cuts)]
    return [slices[process::num_processes] for process in range(num_processes)]
