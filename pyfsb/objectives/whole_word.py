# SPDX-License-Identifier: Apache-2.0
"""Masked language modelling of whole words, from the word bits stored with the tokens.

Shapes: B samples, N tokens end to end, W words, P predicted positions.

Source: whole-word masking after Cui et al. 2019, section 3 (arXiv:1906.08101). How the budget is
met is our choice: words in random order until it is full, the last one with the probability that
makes the expected share of predicted tokens exactly the ratio.
"""

from __future__ import annotations

from typing import ClassVar

from pyfsb.objectives.draws import Purpose, draw, draw_bits_of_all, row_keys
from pyfsb.objectives.masked_lm import MaskedLm, mark
from pyfsb.objectives.protocol import Bits, Ints, Samples
from pyfsb.objectives.units import Floats, Units, choose_units, find_units

_LIKELY_BUDGETS = 2.0
"""Words that are worth sorting have this many times the budget of tokens; costs time only."""


class WholeWord(MaskedLm):
    """Hides whole words and asks for their tokens."""

    name: ClassVar[str] = "whole_word"

    def choose(self, samples: Samples, *, seed: int) -> Ints:
        """Return the tokens of randomly chosen whole words."""
        return choose_word_tokens(samples, ratio=self._ratio, seed=seed)


def choose_words(samples: Samples, *, ratio: float, seed: int) -> Bits:
    """Mark the tokens of randomly chosen whole words.

    Args:
        samples: The batch; each sample's pass gives other words.
        ratio: Expected share of marked tokens, in each sample.
        seed: Run seed.

    Returns:
        Booleans, shape [N]; the tokens of one word are all marked or none.
    """
    return mark(choose_word_tokens(samples, ratio=ratio, seed=seed), samples.ids_N.size)


def choose_word_tokens(samples: Samples, *, ratio: float, seed: int) -> Ints:
    """Return the tokens that `choose_words` marks, ascending, [P]."""
    words = find_units(samples.words_N, samples.lengths_B)
    return words.tokens_of(choose_evenly(words, samples, ratio=ratio, seed=seed))


def choose_evenly(units: Units, samples: Samples, *, ratio: float, seed: int) -> Ints:
    """Fill a share of each sample's tokens with units in random order; returns the chosen ones."""
    last_B = row_keys(samples, seed=seed, purpose=Purpose.LAST)

    def draw_last(units_C: Ints) -> Floats:
        rows_C = units.rows_of(units_C)
        return draw(last_B[rows_C], units_C - units.firsts_B[rows_C])

    keys_B = row_keys(samples, seed=seed, purpose=Purpose.ORDER)
    likely = _LIKELY_BUDGETS * ratio
    return choose_units(
        units,
        draw_bits_of_all(keys_B, units.counts_B),
        ratio * samples.lengths_B,
        draw_last,
        limit=int(likely * 2.0**64) if likely < 1.0 else None,
    )
