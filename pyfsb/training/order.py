# SPDX-License-Identifier: Apache-2.0
"""Which sample comes when: bijections of the sample numbers, computed at any place in O(1).

A pass over the data is an epoch; `at(positions, epoch)` names the samples that stand there and the
pass over their own part of the data that they belong to, the key of their masking. Nothing here
knows of processes or batches, and nothing is kept but counts, so a run continues anywhere from
(seed, epoch, offset) alone. Called by `StepPlanner`; `needs` tells a streaming source which shards
come next. Held-out samples, the tail of each part, are in no order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import ConfigError
from pyfsb.seeding import hash64, permute

Ints: TypeAlias = NDArray[np.int64]

_BLOCK_SAMPLES: Final = 1024
"""Samples of a blend that are shuffled together after parts were dealt out evenly."""
_SHARDS, _WINDOW, _BLEND, _PART = range(101, 105)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The shards of one part that a stretch of an order reads."""

    now: Ints
    """Numbers of the shards that the stretch itself reads."""
    coming: Ints
    """Those of the window after it."""
    later: Ints
    """Those after that, in the order in which they are read; a shard may stand here again."""


class SampleOrder(Protocol):
    """An endless sequence of passes over samples."""

    @property
    def num_samples(self) -> int:
        """Samples of one epoch."""

    def at(self, positions: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the samples at positions of an epoch, and the pass over their part of each."""

    def needs(self, first: int, last: int, epoch: int) -> tuple[Needs, ...]:
        """Return, for each part, the shards read from position `first` to `last`, inclusive."""

    def whole_passes(self, num_epochs: int) -> tuple[int, ...]:
        """Return how many whole passes over each part so many epochs have."""


class ShuffledOrder:
    """Everything shuffled together."""

    def __init__(self, num_samples: int, *, seed: int, num_shards: int = 1) -> None:
        """Keep the counts.

        Args:
            num_samples: Samples 0 to num_samples - 1 are in the order.
            seed: Of the shuffle.
            num_shards: Shards they lie in.
        """
        self.num_samples = num_samples
        self._seed = seed
        self._num_shards = num_shards

    def at(self, positions: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the samples at positions of an epoch, and the pass of each: the epoch."""
        sample_ids = permute(positions, self.num_samples, self._seed, epoch)
        return sample_ids, np.full(sample_ids.shape, epoch, dtype=np.int64)

    def whole_passes(self, num_epochs: int) -> tuple[int, ...]:
        """Return the epochs."""
        return (num_epochs,)

    def needs(self, first: int, last: int, epoch: int) -> tuple[Needs, ...]:
        """Return all shards."""
        nothing = np.empty(0, dtype=np.int64)
        return (Needs(now=np.arange(self._num_shards), coming=nothing, later=nothing),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The shards of one epoch in their order."""

    shards: Ints
    """Shard numbers in the order of the epoch."""
    ends: Ints
    """Samples before each of them, then all."""
    window_ends: Ints
    """Samples before each window, then all."""


class WindowedOrder:
    """Shards shuffled, then windows of shards shuffled together, one after the other.

    Source: our choice; a bounded cache of two windows suffices, and every sample is read once.
    """

    def __init__(self, shard_samples: Ints, *, window_shards: int, seed: int) -> None:
        """Keep the counts.

        Args:
            shard_samples: Samples of each shard that are in the order: its first ones.
            window_shards: Shards of a window.
            seed: Of both shuffles.
        """
        self._firsts = np.cumsum(shard_samples) - shard_samples
        # A shard may be held out whole: it stays in no window.
        self._shards = np.flatnonzero(shard_samples)
        self._counts = np.asarray(shard_samples, dtype=np.int64)
        self._window_shards = window_shards
        self._seed = seed
        self.num_samples = int(self._counts.sum())
        self._layouts: dict[int, _Layout] = {}

    def at(self, positions: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the samples at positions of an epoch, and the pass of each: the epoch."""
        layout = self._layout_of(epoch)
        windows = np.searchsorted(layout.window_ends, positions, side="right") - 1
        starts = layout.window_ends[windows]
        sizes = layout.window_ends[windows + 1] - starts
        places = starts + permute(positions - starts, sizes, self._seed, epoch, _WINDOW, windows)
        slots = np.searchsorted(layout.ends, places, side="right") - 1
        sample_ids = self._firsts[layout.shards[slots]] + places - layout.ends[slots]
        return sample_ids, np.full(sample_ids.shape, epoch, dtype=np.int64)

    def whole_passes(self, num_epochs: int) -> tuple[int, ...]:
        """Return the epochs."""
        return (num_epochs,)

    def needs(self, first: int, last: int, epoch: int) -> tuple[Needs, ...]:
        """Return the shards of the windows from `first` to `last`, and those of the next one."""
        layout = self._layout_of(epoch)
        edges = np.searchsorted(layout.window_ends, [first, last], side="right") - 1
        size = self._window_shards
        start, stop = int(edges[0]) * size, (int(edges[1]) + 1) * size
        after = np.concatenate((layout.shards[stop:], self._layout_of(epoch + 1).shards))
        # A window that ends an epoch is short: the next epoch's first one does not fill it up.
        num_coming = min(size, layout.shards[stop:].size) or size
        needs = Needs(
            now=layout.shards[start:stop], coming=after[:num_coming], later=after[num_coming:]
        )
        return (needs,)

    def _layout_of(self, epoch: int) -> _Layout:
        """Return the layout of an epoch; those of two epochs are kept."""
        if epoch not in self._layouts:
            kept = {
                number: self._layouts[number] for number in self._layouts if number == epoch - 1
            }
            self._layouts = {**kept, epoch: self._arrange(epoch)}
        return self._layouts[epoch]

    def _arrange(self, epoch: int) -> _Layout:
        num_shards = self._shards.size
        shuffled = permute(np.arange(num_shards), max(1, num_shards), self._seed, epoch, _SHARDS)
        shards = self._shards[shuffled]
        ends = np.concatenate(([0], np.cumsum(self._counts[shards])))
        window_ends = np.append(ends[: -1 : self._window_shards], ends[-1])
        return _Layout(shards=shards, ends=ends, window_ends=window_ends)


class BlendedOrder:
    """Several parts, each with its exact share of every epoch.

    A part goes round its own passes: the samples it gives to an epoch follow on those it gave to
    the one before, so within a pass of the part nothing is lost and nothing repeated, however
    often it fits an epoch. Parts are dealt out evenly over the epoch and then shuffled in small
    blocks, so a part's own order is kept but for neighbours, and windows stay windows.
    """

    def __init__(
        self, parts: Sequence[SampleOrder], firsts: Ints, weights: Sequence[float], *, seed: int
    ) -> None:
        """Apportion an epoch, as many samples as there are in all, to the parts.

        Args:
            parts: The order of each part.
            firsts: Number of the first sample of each part.
            weights: Share of each part, against the others.
            seed: Of the mixing.
        """
        self._parts = tuple(parts)
        self._firsts = np.asarray(firsts, dtype=np.int64)
        self._seed = seed
        self.num_samples = sum(part.num_samples for part in parts)
        self.counts = apportion(self.num_samples, weights)
        """Samples of each part in one epoch."""

    def at(self, positions: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the samples at positions of an epoch, and the pass over their part of each."""
        positions = np.asarray(positions, dtype=np.int64)
        blocks = positions // _BLOCK_SAMPLES
        starts = blocks * _BLOCK_SAMPLES
        sizes = np.minimum(_BLOCK_SAMPLES, self.num_samples - starts)
        slots = starts + permute(positions - starts, sizes, self._seed, epoch, _BLEND, blocks)
        before, after = self._dealt(slots), self._dealt(slots + 1)
        sample_ids, passes = np.empty_like(positions), np.empty_like(positions)
        for number, part in enumerate(self._parts):
            mine = np.flatnonzero(after[number] > before[number])
            if not mine.size:
                continue
            turns = epoch * int(self.counts[number]) + before[number][mine]
            own_passes, offsets = np.divmod(turns, part.num_samples)
            for own_pass in np.unique(own_passes):
                chosen = own_passes == own_pass
                found, _ = part.at(offsets[chosen], int(own_pass))
                sample_ids[mine[chosen]] = found + self._firsts[number]
            passes[mine] = own_passes
        return sample_ids, passes

    def needs(self, first: int, last: int, epoch: int) -> tuple[Needs, ...]:
        """Return, for each part, the shards read from position `first` to `last`, inclusive."""
        start = first // _BLOCK_SAMPLES * _BLOCK_SAMPLES
        stop = min(self.num_samples, (last // _BLOCK_SAMPLES + 1) * _BLOCK_SAMPLES)
        begins, ends = self._dealt(np.array([start])), self._dealt(np.array([stop]))
        found: list[Needs] = []
        for number, part in enumerate(self._parts):
            turn = epoch * int(self.counts[number])
            begin, end = turn + int(begins[number][0]), turn + int(ends[number][0])
            found.append(_stretch(part, begin, max(begin, end - 1)))
        return tuple(found)

    def whole_passes(self, num_epochs: int) -> tuple[int, ...]:
        """Return how many whole passes over each part so many epochs have."""
        turns = zip(self.counts.tolist(), self._parts, strict=True)
        return tuple(num_epochs * count // part.num_samples for count, part in turns)

    def _dealt(self, slots: Ints) -> list[Ints]:
        """Return how many of the first `slots` places of an epoch each part has.

        One part is dealt against all that follow, then the next one among what is left: every
        count grows by whole samples and they sum up to the places.
        """
        dealt: list[Ints] = []
        left, room = slots, self.num_samples
        for count in self.counts.tolist():
            own = _scale(left, count, room) if room else left
            dealt.append(own)
            left, room = left - own, room - count
        return dealt


class FollowedOrder:
    """An order whose reader says how far it is, so that shards can be brought before they are read.

    The sequence is that of the order within.
    """

    def __init__(self, order: SampleOrder, tell: Callable[[tuple[Needs, ...]], None]) -> None:
        """Keep the order.

        Args:
            order: The sequence.
            tell: Receives what each part needs, from the planner's thread; must return at once.
        """
        self._order = order
        self._tell = tell

    @property
    def num_samples(self) -> int:
        """Samples of one epoch."""
        return self._order.num_samples

    def at(self, positions: Ints, epoch: int) -> tuple[Ints, Ints]:
        """Return the samples at positions of an epoch, and the pass over their part of each."""
        return self._order.at(positions, epoch)

    def needs(self, first: int, last: int, epoch: int) -> tuple[Needs, ...]:
        """Return, for each part, the shards read from position `first` to `last`, inclusive."""
        return self._order.needs(first, last, epoch)

    def whole_passes(self, num_epochs: int) -> tuple[int, ...]:
        """Return how many whole passes over each part so many epochs have."""
        return self._order.whole_passes(num_epochs)

    def follow(self, first: int, last: int, epoch: int) -> None:
        """Tell that positions from `first` to `last` are about to be read."""
        self._tell(self.needs(first, last, epoch))


def _stretch(part: SampleOrder, begin: int, end: int) -> Needs:
    """Return what one part needs from its turn `begin` to its turn `end`, over its passes."""
    (first_pass, first), (last_pass, last) = (
        divmod(turn, part.num_samples) for turn in (begin, end)
    )
    if first_pass == last_pass:
        return part.needs(first, last, first_pass)[0]
    head = part.needs(first, part.num_samples - 1, first_pass)[0]
    tail = part.needs(0, last, last_pass)[0]
    now = np.unique(np.concatenate((head.now, tail.now)))
    return Needs(now=now, coming=tail.coming, later=tail.later)


def _scale(values: Ints, numerator: int, denominator: int) -> Ints:
    """Return floor(values x numerator / denominator), exact up to 2**40 of each."""
    high, low = values >> 20, values & 0xFFFFF
    quotient, rest = np.divmod(high * numerator, denominator)
    scaled: Ints = (quotient << 20) + ((rest << 20) + low * numerator) // denominator
    return scaled


def apportion(total: int, weights: Sequence[float]) -> Ints:
    """Share whole samples out by weight.

    Source: the largest-remainder method (Hamilton); ties go to the earlier part.
    """
    shares = np.asarray(weights, dtype=np.float64) / float(np.sum(weights)) * total
    counts: Ints = np.floor(shares).astype(np.int64)
    order = np.argsort(-(shares - counts), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def held_out_ids(part_samples: Sequence[int], held_out_samples: int) -> Ints:
    """Return the numbers of the held-out samples: the last ones of each part.

    Args:
        part_samples: Samples of each part.
        held_out_samples: Samples held out of each part.
    """
    ends = np.cumsum(part_samples, dtype=np.int64)
    tails = ends[:, None] - held_out_samples + np.arange(held_out_samples)
    return tails.reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One corpus as an order sees it."""

    name: str
    """Its name, for errors."""
    shard_samples: Ints
    """Samples of each of its shards, held-out ones included."""
    weight: float | None = None
    """Its share against the others. None: samples to the power of 1 / temperature."""


def build_order(
    parts: Sequence[Part],
    *,
    seed: int,
    held_out_samples: int = 0,
    window_shards: int | None = None,
    temperature: float = 1.0,
) -> SampleOrder:
    """Return the order of one corpus or of a blend.

    Args:
        parts: The corpora; their samples are numbered one part after the other.
        seed: Of all shuffles.
        held_out_samples: The last samples of each part, which are in no order.
        window_shards: Shards shuffled together. None shuffles all of a part.
        temperature: Above 1, small parts get more than their share.

    Raises:
        ConfigError: A part has nothing left beside what is held out.
    """
    orders: list[SampleOrder] = []
    weights: list[float] = []
    for number, part in enumerate(parts):
        total = int(part.shard_samples.sum())
        left = total - held_out_samples
        if left < 1:
            raise ConfigError(
                f"training.validation_samples = {held_out_samples}: corpus {part.name} has "
                f"{total} samples; hold out at most {max(0, total - 1)}"
            )
        # A single corpus keeps the run's own seed; parts of a blend differ.
        own_seed = seed if len(parts) == 1 else int(hash64(seed, _PART, number)) >> 1
        if window_shards is None:
            num_shards = part.shard_samples.size
            orders.append(ShuffledOrder(left, seed=own_seed, num_shards=num_shards))
        else:
            counts = _without_tail(part.shard_samples, held_out_samples)
            orders.append(WindowedOrder(counts, window_shards=window_shards, seed=own_seed))
        weights.append(part.weight if part.weight is not None else left ** (1.0 / temperature))
    if len(orders) == 1:
        return orders[0]
    totals = np.array([int(part.shard_samples.sum()) for part in parts])
    return BlendedOrder(orders, np.cumsum(totals) - totals, weights, seed=seed)


def _without_tail(shard_samples: Ints, held_out_samples: int) -> Ints:
    """Return the samples of each shard that are left without the last ones of all."""
    ends = np.cumsum(shard_samples)
    left = ends[-1] - held_out_samples - (ends - shard_samples)
    kept: Ints = np.clip(left, 0, shard_samples)
    return kept
