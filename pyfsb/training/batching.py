# SPDX-License-Identifier: Apache-2.0
"""Which samples a step trains on, and who takes which of them.

A step takes the next samples of an order that fit its token budget, so what a step sees depends on
the position in the data alone: not on the number of processes, not on when the run was stopped.
Steps never cross an epoch. `share_out` then deals a step's samples to processes and micro-steps;
it changes nothing about which samples the step has. Never reads a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb.training.order import FollowedOrder, SampleOrder
from pyfsb.training.packing import cut_rows, pack_tokens

Ints: TypeAlias = NDArray[np.int64]
_BLOCK_SAMPLES: Final = 4096
"""Positions whose samples are worked out together; what a step holds does not depend on it."""
_COUNT_SAMPLES: Final = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the endless sequence of samples."""

    epoch: int = 0
    """Epochs completed."""
    offset: int = 0
    """Samples of this epoch that were taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """The samples of one optimizer step."""

    sample_ids: Ints
    """Numbers of the samples, in the order of the sequence."""
    passes: Ints
    """The pass over its part of the data that each is of: the key of its masking."""
    epoch: int
    """Epoch they are of."""
    next: Position
    """Where the following step begins."""


class Lengths(Protocol):
    """Tokens of samples by number; an array is one, a source of many shards looks them up."""

    def __getitem__(self, sample_ids: Ints, /) -> Ints:
        """Return the tokens of samples, special tokens included."""


class StepPlanner:
    """Cuts an order into steps of about equal tokens."""

    def __init__(self, lengths: Lengths, order: SampleOrder, *, tokens: int) -> None:
        """Keep lengths and order.

        Args:
            lengths: Tokens of each sample, special tokens included.
            order: The sequence of samples.
            tokens: Token budget of a step; a longer sample makes a step of its own.
        """
        self._lengths = lengths
        self._order = order
        self._tokens = tokens
        self._chunk_samples = 16
        self._known = (-1, -1, 0, np.empty(0, np.int64))
        self._planned = (np.empty(0, np.int64), np.empty(0, np.int64))
        self._block = (-1, -1, np.empty(0, np.int64), np.empty(0, np.int64))

    def plan(self, position: Position) -> StepPlan:
        """Return the step that begins at a position, in O(samples of the step)."""
        ids: list[Ints] = []
        passes: list[Ints] = []
        lengths: list[Ints] = []
        offset, budget, size = position.offset, self._tokens, self._order.num_samples
        while offset < size:
            found, found_passes, own = self._take(offset, position)
            used = np.cumsum(own)
            num_fitting = int(np.searchsorted(used, budget, side="right"))
            if not ids and not num_fitting:
                num_fitting = 1
            ids.append(found[:num_fitting])
            passes.append(found_passes[:num_fitting])
            lengths.append(own[:num_fitting])
            offset += num_fitting
            if num_fitting < found.size:
                break
            budget -= int(used[-1])
        following = Position(epoch=position.epoch, offset=offset)
        if offset >= size:
            following = Position(epoch=position.epoch + 1)
        # What is looked up in one go; only speed depends on it. Windows that are followed are not
        # looked into before their time, elsewhere several steps cost little more than one.
        num_ahead = (offset - position.offset) * 9 // 8
        if not isinstance(self._order, FollowedOrder):
            num_ahead = max(num_ahead, 4 * self._chunk_samples)
        self._chunk_samples = max(16, min(_BLOCK_SAMPLES, num_ahead))
        sample_ids = np.concatenate(ids)
        self._planned = (sample_ids, np.concatenate(lengths))
        return StepPlan(
            sample_ids=sample_ids,
            passes=np.concatenate(passes),
            epoch=position.epoch,
            next=following,
        )

    def count_steps(self, num_epochs: int, *, limit: int | None = None) -> int:
        """Return the number of steps of whole epochs; looks up lengths until the limit is met.

        Args:
            num_epochs: Epochs.
            limit: More steps are not counted. None counts all.
        """
        num_steps = 0
        for epoch in range(num_epochs):
            for counted in self._count_epoch(epoch):
                num_steps += counted
                if limit is not None and num_steps >= limit:
                    return limit
        return num_steps

    def lengths_of(self, sample_ids: Ints) -> Ints:
        """Return the tokens of samples, special tokens included; those just planned are known."""
        planned, lengths = self._planned
        return lengths if sample_ids is planned else self._lengths[sample_ids]

    def _take(self, offset: int, begin: Position) -> tuple[Ints, Ints, Ints]:
        """Return some samples of a step from an offset on, with their passes and lengths."""
        epoch, is_followed = begin.epoch, isinstance(self._order, FollowedOrder)
        number, start = divmod(offset, _BLOCK_SAMPLES)
        block, known = self._block, self._known  # read once: another thread may plan, too
        if block[:2] != (epoch, number):
            first = offset - start
            last = min(self._order.num_samples, first + _BLOCK_SAMPLES)
            block = (epoch, number, *self._order.at(np.arange(first, last), epoch))
            self._block = block
        is_known = known[:2] == (epoch, number) and 0 <= start - known[2] < known[3].size
        if is_followed or not is_known:
            found = block[2][start : start + self._chunk_samples]
            if isinstance(self._order, FollowedOrder):  # the step's first windows stay
                self._order.follow(begin.offset, offset + found.size - 1, epoch)
            self._known = known = (epoch, number, start, self._lengths[found])
        lengths = known[3][start - known[2] :]
        stop = start + lengths.size
        return block[2][start:stop], block[3][start:stop], lengths

    def _count_epoch(self, epoch: int) -> Iterator[int]:
        """Count the steps of an epoch, some at a time: hop over running sums of lengths."""
        size, budget = self._order.num_samples, 0  # tokens left in the step that is open
        for start in range(0, size, _COUNT_SAMPLES):
            positions = np.arange(start, min(size, start + _COUNT_SAMPLES))
            ends = np.cumsum(self._lengths[self._order.at(positions, epoch)[0]])
            num_steps, base = 0, 0
            while (stop := int(np.searchsorted(ends, base + budget, side="right"))) < ends.size:
                # The sample at `stop` does not fit: it opens a step, and may be longer than one.
                num_steps += 1
                base = int(ends[stop - 1]) if stop else 0
                budget = max(self._tokens, int(ends[stop]) - base)
            budget -= int(ends[-1]) - base
            yield num_steps


def share_out(
    lengths: Ints, *, num_processes: int, micro_tokens: int, layout: str = "flat"
) -> list[list[Ints]]:
    """Share the samples of a step out to processes and micro-steps.

    Layouts flat and packed fill micro-batches to equal token counts; buckets cuts the samples,
    sorted by length, and padded cuts them as they come, into rows of about equal padded cost.

    Args:
        lengths: Tokens of each sample of the step.
        num_processes: Processes; all get the same number of micro-batches.
        micro_tokens: Tokens of a micro-batch at most (padded ones in layouts buckets and padded),
            unless one sample alone is longer.
        layout: flat, packed, buckets or padded, as BatchSpec.layout.

    Returns:
        For each process its micro-batches, each an array of indices into `lengths` (it may be
        empty).
    """
    if layout in ("flat", "packed"):
        slices = pack_tokens(lengths, num_processes=num_processes, micro_tokens=micro_tokens)
    else:
        order = np.argsort(-lengths, kind="stable") if layout == "buckets" else None
        slices = cut_rows(
            lengths, order=order, num_processes=num_processes, micro_tokens=micro_tokens
        )
    return [slices[process::num_processes] for process in range(num_processes)]


def fill_ratio(lengths: Ints, micro_batches: list[list[Ints]], *, micro_tokens: int) -> float:
    """Return the share of tokens in micro-batches that are filled up to micro_tokens each."""
    num_batches = sum(len(batches) for batches in micro_batches)
    return float(np.minimum(lengths, micro_tokens).sum()) / (num_batches * micro_tokens)
