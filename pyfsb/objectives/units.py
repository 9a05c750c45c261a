# SPDX-License-Identifier: Apache-2.0
"""Words, n-grams or sentences of samples, and choosing among them.

Shapes: B samples, N tokens end to end, U units end to end, C chosen units, P their tokens.

Everything is computed for the whole batch at once. Called by objectives; draws nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyfsb.objectives.draws import Floats, UInt64s
from pyfsb.objectives.protocol import Bits, Ints

_MAX_SHORT_ROWS = 1 << 16
"""Rows whose numbers fit 16 bits are sorted by radix, about ten times as fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Pieces that samples are divided into without gaps."""

    bounds: Ints
    """First token of each unit, and N; [U + 1]."""
    firsts_B: Ints
    """First unit of each sample."""
    counts_B: Ints
    """Units of each sample."""

    @property
    def rows_U(self) -> Ints:
        """The sample of each unit."""
        return np.repeat(np.arange(self.counts_B.size), self.counts_B)

    @property
    def lengths_U(self) -> Ints:
        """Tokens of each unit."""
        return np.diff(self.bounds)

    def rows_of(self, units_C: Ints) -> Ints:
        """Return the sample of units that ascend, [C]."""
        firsts_B = np.searchsorted(units_C, self.firsts_B)
        counts_B = np.diff(firsts_B, append=units_C.size)
        return np.repeat(np.arange(counts_B.size), counts_B)

    def lengths_of(self, units_C: Ints) -> Ints:
        """Return the tokens of chosen units, [C]."""
        return self.bounds.take(units_C + 1) - self.bounds.take(units_C)

    def tokens_of(self, units_C: Ints) -> Ints:
        """Return the tokens of chosen units, in the order of these, [P]."""
        return spread(self.bounds[units_C], self.lengths_of(units_C))


def find_units(starts_N: Bits, lengths_B: Ints) -> Units:
    """Return the units that begin at the marked tokens; each sample begins one."""
    is_bound = np.empty(starts_N.size + 1, dtype=np.bool_)
    is_bound[:-1] = starts_N
    row_starts_B = np.cumsum(lengths_B) - lengths_B
    is_bound[row_starts_B] = True  # of an empty sample it is the bound of the one before
    is_bound[-1] = True
    bounds = np.flatnonzero(is_bound)
    firsts_B = np.searchsorted(bounds[:-1], row_starts_B)
    return Units(
        bounds=bounds, firsts_B=firsts_B, counts_B=np.diff(firsts_B, append=bounds.size - 1)
    )


def spread(starts_C: Ints, lengths_C: Ints) -> Ints:
    """Return the numbers of ranges end to end: start, start + 1 … of each, [P]."""
    ends_C = np.cumsum(lengths_C)
    numbers: Ints = np.arange(int(ends_C[-1]) if ends_C.size else 0)
    numbers += np.repeat(starts_C - ends_C + lengths_C, lengths_C)
    return numbers


def order_within_rows(keys_C: NDArray[np.generic], rows_C: Ints, num_rows: int) -> Ints:
    """Return how to order things by sample, and by key within each, [C]."""
    by_key = np.argsort(keys_C)
    rows = rows_C[by_key]
    if num_rows <= _MAX_SHORT_ROWS:
        return by_key[np.argsort(rows.astype(np.uint16), kind="stable")]
    return by_key[np.argsort(rows, kind="stable")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Chosen units and their tokens."""

    units_C: Ints
    """Numbers of the units, ascending."""
    tokens_P: Ints
    """Their tokens, ascending: indices into N."""
    rows_P: Ints
    """The sample of each token."""


def choose_units(
    units: Units,
    keys_U: UInt64s | Floats,
    budgets_B: NDArray[np.floating[Any]],
    draw_last: Callable[[Ints, Ints], Floats],
    *,
    limit: np.uint64 | None = None,
) -> Choice:
    """Fill the budget of every sample with units in the order of their keys.

    The unit that overfills a budget is taken with the probability that makes the expected number of
    chosen tokens the budget exactly. A unit's chance depends on its key alone.

    Args:
        units: What there is to choose from.
        keys_U: Smaller ones come first.
        budgets_B: Tokens to choose in each sample.
        draw_last: Returns a number in [0, 1) for each unit, given samples and places in these.
        limit: Of keys that are random bits: those below it are enough in most samples, so that only
            they are looked at; the result does not depend on it. None sorts all.
    """
    rough = _sort_roughly(units, keys_U, np.ceil(budgets_B), limit)
    members, rows, lengths = rough.members, rough.rows, rough.lengths
    places = np.flatnonzero(rough.is_open)
    places = places[order_within_rows(keys_U[members[places]], rows[places], budgets_B.size)]
    open_rows, open_lengths = rows[places], lengths[places]
    ends = np.concatenate(([0], np.cumsum(open_lengths)))
    before_B = ends[np.searchsorted(open_rows, np.arange(budgets_B.size))] - rough.taken_B
    rest = budgets_B[open_rows] - (ends[1:] - before_B[open_rows])  # once the unit is taken
    fits = rest >= 0
    edge = np.flatnonzero((rest > -open_lengths) & ~fits)
    edge_rows, edge_lengths = open_rows[edge], open_lengths[edge]
    last = draw_last(edge_rows, members[places[edge]] - units.firsts_B[edge_rows])
    fits[edge] = last * edge_lengths < rest[edge] + edge_lengths
    rough.is_chosen[places[fits]] = True
    chosen = np.flatnonzero(rough.is_chosen)
    units_C, lengths_C = members.take(chosen), lengths.take(chosen)
    return Choice(
        units_C=units_C,
        tokens_P=spread(units.bounds.take(units_C), lengths_C),
        rows_P=np.repeat(rows.take(chosen), lengths_C),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rough:
    """Units that may be chosen, ascending, and what is known before they are sorted; M of them."""

    members: Ints
    """Their numbers."""
    rows: Ints
    """Their samples."""
    lengths: Ints
    """Their tokens."""
    is_chosen: Bits
    """True: the budget holds the unit and all of smaller keys."""
    is_open: Bits
    """True: sorting these has to tell."""
    taken_B: Ints
    """Tokens of each sample that are chosen already."""


def _sort_roughly(
    units: Units, keys_U: UInt64s | Floats, needed_B: Floats, limit: np.uint64 | None
) -> _Rough:
    """Sort units into bins of their keys; only the bin that fills a budget needs more.

    Args:
        units: What there is to choose from.
        keys_U: Smaller ones come first.
        needed_B: Tokens that fill the budget of each sample, whole numbers.
        limit: As in `choose_units`.
    """
    if limit is None:
        undecided = np.ones(keys_U.size, dtype=np.bool_)
        return _Rough(
            members=np.arange(keys_U.size), rows=units.rows_U, lengths=units.lengths_U,
            is_chosen=~undecided, is_open=undecided, taken_B=np.zeros_like(units.counts_B),
        )  # fmt: skip
    bits_U: UInt64s = keys_U.astype(np.uint64, copy=False)  # only random bits have a limit
    is_member_U = bits_U < limit
    members = np.flatnonzero(is_member_U)
    rough, is_short_B = _fill_bins(units, bits_U, members, needed_B, limit)
    if is_short_B.any():
        members = np.flatnonzero(is_member_U | np.repeat(is_short_B, units.counts_B))
        rough, _ = _fill_bins(units, bits_U, members, needed_B, limit)
    return rough


def _fill_bins(
    units: Units, bits_U: UInt64s, members: Ints, needed_B: Floats, limit: np.uint64
) -> tuple[_Rough, Bits]:
    """Sort members into bins; returns also which samples have too few of them."""
    num_rows = needed_B.size
    num_bits = (members.size // max(1, num_rows)).bit_length()
    num_bins = (1 << num_bits) + 1  # about one for a unit; the last one for keys from the limit on
    shift = np.uint64(max(0, int(limit).bit_length() - num_bits))
    rows, lengths = units.rows_of(members), units.lengths_of(members)
    edges = np.arange(num_rows + 1) * num_bins
    bins = np.minimum(bits_U.take(members) >> shift, np.uint64(num_bins - 1)).astype(np.int64)
    bins += edges.take(rows)
    tokens_of_bin = np.bincount(bins, weights=lengths, minlength=num_rows * num_bins)
    ends = np.concatenate(([0.0], np.cumsum(tokens_of_bin)))
    before_B = ends[edges[:-1]]
    full = np.minimum(np.searchsorted(ends[1:], before_B + needed_B), edges[1:])
    full_of_unit = full.take(rows)
    rough = _Rough(
        members=members, rows=rows, lengths=lengths,
        is_chosen=bins < full_of_unit, is_open=bins == full_of_unit,
        taken_B=(ends[full] - before_B).astype(np.int64),
    )  # fmt: skip
    return rough, ends[edges[1:]] - before_B < needed_B
