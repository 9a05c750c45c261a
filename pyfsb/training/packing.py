# SPDX-License-Identifier: Apache-2.0
"""Filling micro-batches: samples into bins of equal token counts, or into rows of equal cost.

Called by `share_out`; works on lengths alone and keeps the number of bins a multiple of the
number of processes. Never looks at what a sample says.
"""

from __future__ import annotations

import heapq
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]


def pack_tokens(lengths: Ints, *, num_processes: int, micro_tokens: int) -> list[Ints]:
    """Put samples into the fewest bins of at most micro_tokens, of equal tokens where that goes.

    Args:
        lengths: Tokens of each sample; a longer one than a bin takes a bin alone.
        num_processes: The number of bins is a multiple of it.
        micro_tokens: Tokens of a bin at most.

    Returns:
        Indices into `lengths`, one array a bin, fuller bins first.

    Source:
        Longest processing time first (Graham 1969) for equal bins, those that run over repaired by
        swaps (our choice); where that does not fit, best-fit decreasing (Johnson 1974), and where
        that does not either, more bins.
    """
    sizes = np.minimum(lengths, micro_tokens)
    order = np.argsort(-sizes, kind="stable")
    num_bins = num_processes * max(1, -(-int(sizes.sum()) // (num_processes * micro_tokens)))
    if num_bins == 1:
        return [order]
    while True:
        for fill in (fill_evenly, fill_best_fit):
            bins = fill(sizes[order], num_bins, micro_tokens)
            if bins is not None:
                return _gather(order, sizes[order], bins, num_bins)
        num_bins += num_processes


def _gather(order: Ints, sizes: Ints, bins: Ints, num_bins: int) -> list[Ints]:
    """Return the samples of each bin, fuller bins first."""
    loads = np.bincount(bins, weights=sizes, minlength=num_bins)
    ranks = np.empty(num_bins, dtype=np.int64)
    ranks[np.argsort(-loads, kind="stable")] = np.arange(num_bins)
    by_bin = np.argsort(ranks[bins], kind="stable")
    counts = np.bincount(ranks[bins], minlength=num_bins)
    return np.split(order[by_bin], np.cumsum(counts)[:-1])


def fill_evenly(sizes: Ints, num_bins: int, capacity: int) -> Ints | None:
    """Give each sample, longest first, to the emptiest bin, and repair bins that run over.

    Args:
        sizes: Tokens of the samples, falling.
        num_bins: Bins there are.
        capacity: Tokens of a bin at most.

    Returns:
        The bin of each sample, or None when it cannot be repaired.
    """
    heap = [(0, number) for number in range(num_bins)]
    placed: list[int] = []
    for size in sizes.tolist():
        load, number = heap[0]
        placed.append(number)
        heapq.heapreplace(heap, (load + size, number))
    bins = np.array(placed, dtype=np.int64)
    room = capacity - np.bincount(bins, weights=sizes, minlength=num_bins).astype(np.int64)
    while room.min(initial=0) < 0:
        if not _relieve(sizes, bins, room):
            return None
    return bins


def _relieve(sizes: Ints, bins: Ints, room: Ints) -> bool:
    """Swap a sample of the fullest bin for a shorter one of a bin with room, or for nothing.

    What runs over in all gets less with every swap, so repeating it ends.
    """
    fullest = int(np.argmin(room))
    own = np.flatnonzero(bins == fullest)
    for other in np.argsort(-room, kind="stable").tolist():
        most = min(int(room[other]), -int(room[fullest]))
        if most <= 0:
            return False
        theirs = np.flatnonzero(bins == other)
        gains = sizes[own][:, None] - np.append(sizes[theirs], 0)
        gains[gains > most] = 0
        best = int(np.argmax(gains))
        gain = int(gains.flat[best])
        if gain > 0:
            mine, its = divmod(best, theirs.size + 1)
            bins[own[mine]] = other
            bins[theirs[its : its + 1]] = fullest
            room[fullest] += gain
            room[other] -= gain
            return True
    return False


def fill_best_fit(sizes: Ints, num_bins: int, capacity: int) -> Ints | None:
    """Give each sample, longest first, to the fullest bin that has room; None when none has.

    Samples of one length are placed together, so the work grows with the number of lengths.

    Args:
        sizes: Tokens of the samples, falling.
        num_bins: Bins there are.
        capacity: Tokens of a bin at most.

    Returns:
        The bin of each sample.
    """
    room = np.full(num_bins, capacity, dtype=np.int64)
    bins = np.empty(sizes.size, dtype=np.int64)
    starts = np.flatnonzero(np.diff(sizes, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), sizes.size]):
        size = int(sizes[start])
        order = np.argsort(room, kind="stable")
        # The fullest bin stays the fullest while it takes more of the same.
        taken = np.minimum(np.cumsum(room[order] // size), stop - start)
        if taken[-1] < stop - start:
            return None
        counts = np.diff(taken, prepend=0)
        bins[start:stop] = np.repeat(order, counts)
        room[order] -= counts * size
    return bins


def cut_rows(
    lengths: Ints, *, order: Ints | None, num_processes: int, micro_tokens: int
) -> list[Ints]:
    """Cut samples into consecutive slices of about equal padded cost: rows x the longest row.

    Args:
        lengths: Tokens of each sample.
        order: The order in which they are cut. None takes them as they come.
        num_processes: The number of slices is a multiple of it.
        micro_tokens: Padded tokens of a slice at most; a longer sample is a slice alone.

    Returns:
        Indices into `lengths`, one array a slice; the last ones may be empty.
    """
    order = np.arange(lengths.size) if order is None else order
    sizes = lengths[order]
    cuts = _cut(sizes, micro_tokens)
    num_slices = num_processes * max(1, -(-(len(cuts) - 1) // num_processes))
    # The smallest cost of a slice that needs no more slices makes them about equal.
    low, high = int(sizes.max()), micro_tokens
    while low < high:
        middle = (low + high) // 2
        tried = _cut(sizes, middle)
        if len(tried) - 1 <= num_slices:
            cuts, high = tried, middle
        else:
            low = middle + 1
    slices = [order[start:stop] for start, stop in pairwise(cuts)]
    return slices + [order[:0]] * (num_slices - len(slices))


def _cut(sizes: Ints, cost: int) -> list[int]:
    """Return where slices begin, and the end, when each takes as many rows as cost allows."""
    cuts = [0]
    while cuts[-1] < sizes.size:
        start = cuts[-1]
        most = max(1, cost // max(1, int(sizes[start])))
        ahead = np.maximum.accumulate(sizes[start : start + most])
        padded = ahead * np.arange(1, ahead.size + 1)
        cuts.append(start + max(1, int(np.searchsorted(padded, cost, side="right"))))
    return cuts
