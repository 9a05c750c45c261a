# SPDX-License-Identifier: Apache-2.0
"""Knowledge-based dynamic masking (KDM): words that mean more are hidden more often.

Shapes: B samples, N tokens end to end, W words, P predicted positions.

The data stage gives every word a weight (column `knowledge`, see `pyfsb.data.knowledge`): names,
idioms, rare words and content words weigh more than particles. In each pass, words are drawn
without replacement with chances in proportion to their weights until the same budget as in
`whole_word` is full. The share of predicted tokens stays the ratio exactly; what changes is which
words they are of. `describe_choice` tells how far they differ; the data stage writes it down.

Source: the Erlangshen-MegatronBert paper says only that tokens rich in semantics are masked rather
than random ones. The definition here is our choice. Drawing by the smallest of exponential numbers
divided by weights is Efraimidis and Spirakis 2006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pyfsb.errors import DataError
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.masked_lm import COVER_PURPOSES, MaskedLm, mark
from pyfsb.objectives.protocol import Bits, Ints, Samples
from pyfsb.objectives.units import Choice, choose_units, find_units
from pyfsb.objectives.whole_word import CHOICE_PURPOSES

NUM_BINS: Final = 16
"""Bins of the histogram of weights; each has 16 of the 256 values."""


class KnowledgeMasking(MaskedLm):
    """Hides whole words, meaningful ones more often, and asks for their tokens."""

    name: ClassVar[str] = "knowledge_masking"
    columns: ClassVar[tuple[str, ...]] = ("knowledge",)
    purposes: ClassVar[tuple[Purpose, ...]] = CHOICE_PURPOSES

    def choose(self, samples: Samples, draws: Draws) -> Choice:
        """Return the tokens of whole words drawn by weight.

        Raises:
            DataError: The samples have no weights.
        """
        words = find_units(samples.words_N, samples.lengths_B)
        weights_W = _weights(samples)[words.bounds[:-1]]
        numbers_W = draws.of_all(Purpose.ORDER, words.counts_B)
        return choose_units(
            words,
            -np.log1p(-numbers_W) / np.maximum(weights_W, 1),  # 0 counts as the least weight
            self._ratio * samples.lengths_B,
            lambda rows, places: draws.at(Purpose.LAST, rows, places),
        )

    def describe(self, samples: Samples, *, seed: int) -> ChoiceReport:
        """Say which words `build` hides of these samples.

        Raises:
            DataError: The samples have no weights.
        """
        draws = Draws(samples, seed=seed, purposes=(*COVER_PURPOSES, *self.purposes))
        chosen = self.choose(samples, draws)
        return describe_choice(samples, mark(chosen.tokens_P, samples.ids_N.size))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceReport:
    """What a batch's masks were like."""

    realised_ratio: float
    """Predicted tokens over all tokens."""
    words_of_bin: tuple[int, ...]
    """Words of each bin of weights, 16 values each."""
    chosen_of_bin: tuple[int, ...]
    """Predicted words of each bin."""

    @property
    def chosen_ratio_of_bin(self) -> tuple[float, ...]:
        """Share of each bin's words that are predicted; 0 where it has none."""
        pairs = zip(self.chosen_of_bin, self.words_of_bin, strict=True)
        return tuple(chosen / words if words else 0.0 for chosen, words in pairs)


def describe_choice(samples: Samples, is_chosen_N: Bits) -> ChoiceReport:
    """Say how many tokens are predicted and how much their words weigh.

    Args:
        samples: With weights.
        is_chosen_N: The predicted tokens.

    Raises:
        DataError: The samples have no weights.
    """
    words = find_units(samples.words_N, samples.lengths_B)
    firsts_W = words.bounds[:-1]
    bins_W = _weights(samples)[firsts_W].astype(np.int64) * NUM_BINS // 256
    num_tokens = max(1, is_chosen_N.size)
    return ChoiceReport(
        realised_ratio=float(is_chosen_N.sum()) / num_tokens,
        words_of_bin=_count(bins_W),
        chosen_of_bin=_count(bins_W[is_chosen_N[firsts_W]]),
    )


def _count(bins: Ints) -> tuple[int, ...]:
    return tuple(np.bincount(bins, minlength=NUM_BINS).tolist())


def _weights(samples: Samples) -> np.ndarray:
    if samples.knowledge_N is None:
        raise DataError(
            "knowledge_masking needs the weights of words: prepare the data with "
            "data.columns: [knowledge]"
        )
    return samples.knowledge_N
