# SPDX-License-Identifier: Apache-2.0
"""Masked language modelling of whole words, from the word bits stored with the tokens.

Shapes: B samples, N tokens end to end, W words, P predicted positions.

Source: whole-word masking after Cui et al. 2019, section 3 (arXiv:1906.08101); 15 % of tokens,
of them 80 % hidden, 10 % replaced, 10 % kept after Devlin et al. 2019, section 3.1. How the budget
is met is our choice: words in random order until it is full, the last one with the probability
that makes the expected share of predicted tokens exactly the ratio.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.protocol import (
    Bits,
    Inputs,
    Ints,
    Samples,
    SpecialIds,
    frame,
    framed_positions,
)
from pyfsb.seeding import uniform

HIDDEN_RATIO: Final = 0.8
REPLACED_RATIO: Final = 0.1
_ORDER, _LAST, _ACTION, _REPLACEMENT = range(4)


class WholeWord:
    """Hides whole words and asks for their tokens."""

    name: ClassVar[str] = "whole_word"
    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, special: SpecialIds, *, mask_ratio: float) -> None:
        """Keep the ids and the share of tokens to predict, in (0, 1).

        Raises:
            ConfigError: The ratio is 0 or 1.
        """
        if not 0.0 < mask_ratio < 1.0:
            raise ConfigError(f"objective.mask_ratio = {mask_ratio}; expected more than 0, below 1")
        self._special = special
        self._ratio = mask_ratio

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the masked batch of these samples."""
        chosen_N = choose_words(samples, ratio=self._ratio, seed=seed)
        rows, positions = samples.rows_N[chosen_N], samples.positions_N[chosen_N]
        sample_ids, passes = samples.sample_ids_B[rows], samples.passes_B[rows]
        action = uniform(seed, passes, _ACTION, sample_ids, positions)
        pick = uniform(seed, passes, _REPLACEMENT, sample_ids, positions)
        ordinary = self._special.ordinary
        replacement = ordinary[(pick * ordinary.size).astype(np.int64)]
        hidden_ids_N = samples.ids_N.copy()
        targets = samples.ids_N[chosen_N]
        hidden_ids_N[chosen_N] = np.select(
            [action < HIDDEN_RATIO, action < HIDDEN_RATIO + REPLACED_RATIO],
            [np.full_like(targets, self._special.mask), replacement],
            targets,
        )
        ids_N, lengths_B = frame(hidden_ids_N, samples, self._special)
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            target_positions_P=framed_positions(samples)[chosen_N],
            target_ids_P=targets,
        )


def choose_words(samples: Samples, *, ratio: float, seed: int) -> Bits:
    """Mark the tokens of randomly chosen whole words.

    Args:
        samples: The batch; each sample's pass gives other words.
        ratio: Expected share of marked tokens, in each sample.
        seed: Run seed.

    Returns:
        Booleans, shape [N]; the tokens of one word are all marked or none.
    """
    starts_N = samples.words_N.copy()
    starts_N[np.cumsum(samples.lengths_B) - samples.lengths_B] = True
    words_N: Ints = np.cumsum(starts_N) - 1
    rows_W = samples.rows_N[starts_N]
    lengths_W = np.bincount(words_N, minlength=rows_W.size)
    first_words_B = np.searchsorted(rows_W, np.arange(samples.lengths_B.size))
    sample_ids_W, passes_W = samples.sample_ids_B[rows_W], samples.passes_B[rows_W]
    index_W = np.arange(rows_W.size) - first_words_B[rows_W]
    order_W = np.lexsort((uniform(seed, passes_W, _ORDER, sample_ids_W, index_W), rows_W))
    ordered_lengths = lengths_W[order_W]
    before = np.cumsum(ordered_lengths) - ordered_lengths
    before -= before[first_words_B][rows_W]  # rows are in order, words within them are shuffled
    room = ratio * samples.lengths_B[rows_W] - before
    last = uniform(seed, passes_W, _LAST, sample_ids_W, index_W)[order_W]
    is_chosen_W = np.zeros(rows_W.size, dtype=np.bool_)
    is_chosen_W[order_W] = last * ordered_lengths < room
    return is_chosen_W[words_N]
