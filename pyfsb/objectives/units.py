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
        """Return the sample of chosen units, [C]."""
        ends_B = self.firsts_B + self.counts_B
        return np.searchsorted(ends_B, units_C, side="right")

    def lengths_of(self, units_C: Ints) -> Ints:
        """Return the tokens of chosen units, [C]."""
        return self.bounds[units_C + 1] - self.bounds[units_C]

    def tokens_of(self, units_C: Ints) -> Ints:
        """Return the tokens of chosen units, in the order of these, [P]."""
        return spread(self.bounds[units_C], self.lengths_of(units_C))


def find_units(starts_N: Bits, lengths_B: Ints) -> Units:
    """Return the units that begin at the marked tokens; each sample begins one."""
    starts_N = starts_N.copy()
    row_starts_B = np.cumsum(lengths_B) - lengths_B
    starts_N[row_starts_B[lengths_B > 0]] = True
    starts_U = np.flatnonzero(starts_N)
    firsts_B = np.searchsorted(starts_U, row_starts_B)
    return Units(
        bounds=np.append(starts_U, starts_N.size),
        firsts_B=firsts_B,
        counts_B=np.diff(firsts_B, append=starts_U.size),
    )


def spread(starts_C: Ints, lengths_C: Ints) -> Ints:
    """Return the numbers of ranges end to end: start, start + 1 … of each, [P]."""
    firsts_C = np.cumsum(lengths_C) - lengths_C
    return np.repeat(starts_C - firsts_C, lengths_C) + np.arange(int(lengths_C.sum()))


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
        limit: Keys below it are enough in most samples, so that only they are sorted; the result
            does not depend on it. None sorts all.
    """
    members, rows = _find_members(units, keys_U, budgets_B, limit)
    order = order_within_rows(keys_U[members], rows, units.counts_B.size)
    members, rows = members[order], rows[order]
    lengths = units.lengths_of(members)
    ends = np.cumsum(lengths)
    starts_B = np.concatenate(([0], ends))[np.searchsorted(rows, np.arange(budgets_B.size))]
    rest = budgets_B[rows] - (ends - starts_B[rows])  # of the budget, once the unit is taken
    is_chosen = rest >= 0
    edge = np.flatnonzero((rest > -lengths) & ~is_chosen)
    edge_rows, edge_lengths = rows[edge], lengths[edge]
    last = draw_last(edge_rows, members[edge] - units.firsts_B[edge_rows])
    is_chosen[edge] = last * edge_lengths < rest[edge] + edge_lengths
    is_chosen_U = np.zeros(keys_U.size, dtype=np.bool_)
    is_chosen_U[members[is_chosen]] = True
    units_C = np.flatnonzero(is_chosen_U)
    lengths_C = units.lengths_of(units_C)
    return Choice(
        units_C=units_C,
        tokens_P=spread(units.bounds[units_C], lengths_C),
        rows_P=np.repeat(units.rows_of(units_C), lengths_C),
    )


def _find_members(
    units: Units,
    keys_U: UInt64s | Floats,
    budgets_B: NDArray[np.floating[Any]],
    limit: np.uint64 | None,
) -> tuple[Ints, Ints]:
    """Return the units that may be chosen, ascending, and their samples."""
    if limit is None:
        return np.arange(keys_U.size), units.rows_U
    is_low_U = keys_U < limit
    members = np.flatnonzero(is_low_U)
    rows = units.rows_of(members)
    tokens_B = np.bincount(rows, weights=units.lengths_of(members), minlength=budgets_B.size)
    is_short_B = tokens_B < budgets_B
    if is_short_B.any():
        members = np.flatnonzero(is_low_U | np.repeat(is_short_B, units.counts_B))
        rows = units.rows_of(members)
    return members, rows
