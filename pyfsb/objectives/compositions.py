# SPDX-License-Identifier: Apache-2.0
"""Random compositions: a number as a sum of parts, every such sum equally likely.

Shapes: B samples, K parts of all samples end to end, U things end to end.

Called by objectives that hide spans; computed for the whole batch at once.
"""

from __future__ import annotations

import numpy as np

from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.protocol import Bits, Ints
from pyfsb.objectives.units import order_within_rows


def choose_among(draws: Draws, purpose: Purpose, totals_B: Ints, chosen_B: Ints) -> Bits:
    """Choose so many of so many things of every sample, each set of them equally likely.

    Args:
        draws: Has the purpose.
        purpose: What is drawn for.
        totals_B: Things of each sample.
        chosen_B: How many of them to choose.

    Returns:
        Booleans, all samples end to end, [U].
    """
    rows_U = np.repeat(np.arange(totals_B.size), totals_B)
    order_U = order_within_rows(draws.bits_of_all(purpose, totals_B), rows_U, totals_B.size)
    firsts_B = np.cumsum(totals_B) - totals_B
    ranks_U = np.arange(rows_U.size) - firsts_B[rows_U]
    is_chosen_U = np.zeros(rows_U.size, dtype=np.bool_)
    is_chosen_U[order_U[ranks_U < chosen_B[rows_U]]] = True
    return is_chosen_U


def compose(draws: Draws, purpose: Purpose, totals_B: Ints, parts_B: Ints) -> Ints:
    """Divide numbers into so many positive parts each.

    Args:
        draws: Has the purpose.
        purpose: What is drawn for.
        totals_B: Numbers, 1 or more.
        parts_B: Parts of each, from 1 to the number itself.

    Returns:
        The parts of all samples end to end, [K].

    Source: the random segments of T5's span corruption (Raffel et al. 2020), a uniform choice of
    the cuts.
    """
    is_start_U = np.zeros(int(totals_B.sum()), dtype=np.bool_)
    firsts_B = np.cumsum(totals_B) - totals_B
    is_start_U[firsts_B] = True
    can_start_U = ~is_start_U  # every place but the first of a sample
    is_start_U[can_start_U] = choose_among(draws, purpose, totals_B - 1, parts_B - 1)
    return np.diff(np.flatnonzero(is_start_U), append=is_start_U.size)
