# SPDX-License-Identifier: Apache-2.0
"""Masked language modelling of n-grams of whole words.

Shapes: B samples, N tokens end to end, W words, G n-grams, P predicted positions.

Every sample is divided into n-grams of 1, 2, 3 … words with chances that fall as 1/n, and n-grams
in random order fill the budget as words do in `whole_word`. So an n-gram's length has the wanted
chances, none overlap, and every word has the same chance.

Source: n from 1 to 3 with p ~ 1/n as in the published Erlangshen code (fengshen's mask_utils); it
draws places one after the other and takes what still fits. Dividing the text first is our choice.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.masked_lm import MaskedLm
from pyfsb.objectives.protocol import Samples
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.units import Choice, Units, find_units
from pyfsb.objectives.whole_word import CHOICE_PURPOSES, choose_evenly


class NgramMlm(MaskedLm):
    """Hides n-grams of whole words and asks for their tokens."""

    name: ClassVar[str] = "ngram_mlm"
    purposes: ClassVar[tuple[Purpose, ...]] = (*CHOICE_PURPOSES, Purpose.LENGTH)

    def __init__(self, special: SpecialIds, *, mask_ratio: float, max_words: int) -> None:
        """Keep the ids, the share of tokens to predict and the words of an n-gram at most.

        Raises:
            ConfigError: A value is out of its range, or the vocabulary lacks a token.
        """
        super().__init__(special, mask_ratio=mask_ratio)
        if max_words < 1:
            raise ConfigError(f"objective.max_ngram_words = {max_words}; expected 1 or more")
        chances = 1.0 / np.arange(1, max_words + 1)
        self._ends = np.cumsum(chances / chances.sum())[:-1]

    def choose(self, samples: Samples, draws: Draws) -> Choice:
        """Return the tokens of randomly chosen n-grams."""
        words = find_units(samples.words_N, samples.lengths_B)
        return choose_evenly(self.divide(words, draws), samples, draws, ratio=self._ratio)

    def divide(self, words: Units, draws: Draws) -> Units:
        """Return n-grams that the words are divided into; the last of a sample may be shorter.

        Each draws as many lengths as it has words, and those that begin behind its end are unused.
        """
        numbers_W = draws.of_all(Purpose.LENGTH, words.counts_B)
        lengths_W = np.searchsorted(self._ends, numbers_W, side="right") + 1
        ends_W = np.cumsum(lengths_W)
        before_B = np.concatenate(([0], ends_W))[words.firsts_B]
        first_words_W = ends_W - lengths_W - np.repeat(before_B, words.counts_B)
        rows_W = words.rows_U
        is_used_W = first_words_W < words.counts_B[rows_W]
        rows_G = rows_W[is_used_W]
        starts_G = words.bounds[first_words_W[is_used_W] + words.firsts_B[rows_G]]
        firsts_B = np.searchsorted(rows_G, np.arange(words.counts_B.size))
        return Units(
            bounds=np.append(starts_G, words.bounds[-1]),
            firsts_B=firsts_B,
            counts_B=np.diff(firsts_B, append=rows_G.size),
        )
