# SPDX-License-Identifier: Apache-2.0
"""Masked language modelling of whole words, from the word bits stored with the tokens.

Shapes: B samples, N tokens end to end, W words, P predicted positions.

Source: whole-word masking after Cui et al. 2019, section 3 (arXiv:1906.08101). How the budget is
met is our choice: words in random order until it is full, the last one with the probability that
makes the expected share of predicted tokens exactly the ratio.
"""

from __future__ import annotations

from typing import ClassVar, Final

from pyfsb.objectives.draws import Draws, Purpose, threshold
from pyfsb.objectives.masked_lm import MaskedLm, mark
from pyfsb.objectives.protocol import Bits, Samples
from pyfsb.objectives.units import Choice, Units, choose_units, find_units

CHOICE_PURPOSES: Final = (Purpose.ORDER, Purpose.LAST)
"""What `choose_evenly` draws."""
_LIKELY_BUDGETS: Final = 1.6
_LONG_SAMPLE_TOKENS: Final = 128
"""In samples of so many tokens on average, words with this many times the budget are worth a look;
shorter ones would too often need more. Both change the time, never the result."""


class WholeWord(MaskedLm):
    """Hides whole words and asks for their tokens."""

    name: ClassVar[str] = "whole_word"
    purposes: ClassVar[tuple[Purpose, ...]] = CHOICE_PURPOSES

    def choose(self, samples: Samples, draws: Draws) -> Choice:
        """Return the tokens of randomly chosen whole words."""
        words = find_units(samples.words_N, samples.lengths_B)
        return choose_evenly(words, samples, draws, ratio=self._ratio)


def choose_words(samples: Samples, *, ratio: float, seed: int) -> Bits:
    """Mark the tokens of randomly chosen whole words.

    Args:
        samples: The batch; each sample's pass gives other words.
        ratio: Expected share of marked tokens, in each sample.
        seed: Run seed.

    Returns:
        Booleans, shape [N]; the tokens of one word are all marked or none.
    """
    words = find_units(samples.words_N, samples.lengths_B)
    draws = Draws(samples, seed=seed, purposes=CHOICE_PURPOSES)
    chosen = choose_evenly(words, samples, draws, ratio=ratio)
    return mark(chosen.tokens_P, samples.ids_N.size)


def choose_evenly(
    units: Units, samples: Samples, draws: Draws, *, ratio: float, among_B: Bits | None = None
) -> Choice:
    """Fill a share of each sample's tokens with units in random order.

    Args:
        units: Words, or what stands for them.
        samples: The batch.
        draws: Has `CHOICE_PURPOSES`.
        ratio: Expected share of chosen tokens.
        among_B: Samples to choose in. None: all.
    """
    budgets_B = ratio * samples.lengths_B
    is_long = samples.ids_N.size >= _LONG_SAMPLE_TOKENS * samples.lengths_B.size
    likely = min(1.0, _LIKELY_BUDGETS * ratio) if is_long else 1.0
    return choose_units(
        units,
        draws.bits_of_all(Purpose.ORDER, units.counts_B),
        budgets_B if among_B is None else budgets_B * among_B,
        lambda rows, places: draws.at(Purpose.LAST, rows, places),
        limit=threshold(likely),
    )
