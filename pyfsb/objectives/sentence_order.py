# SPDX-License-Identifier: Apache-2.0
"""Sentence order (SOP) beside whole-word masking: were two parts of a text swapped?

Shapes: B samples, N tokens end to end, P predicted positions.

    [CLS] first part [SEP] second part [SEP]        token types 0 … 0 1 … 1

A sample is divided where one of its sentences begins, every such place with the same chance, and
its parts are swapped in half of the cases (label 1). A sample of one sentence, or of fewer than
three tokens, has no order: it stays one part and its label has weight 0, so that it does not teach
that most texts are in order. The longer part loses a token at its beginning or end, so that a
document is as long as other objectives make it.

Source: Lan et al. 2020, section 3.1 (ALBERT); the published Erlangshen code divides alike, cuts the
longer part at a random end, and gives single sentences label 0. Weight 0 is our choice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.framing import frame, join_parts
from pyfsb.objectives.masked_lm import COVER_PURPOSES, MaskedLm, cover
from pyfsb.objectives.protocol import Inputs, Ints, Samples
from pyfsb.objectives.sentences import find_sentences, reorder
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.units import Choice, find_units, spread
from pyfsb.objectives.whole_word import CHOICE_PURPOSES, choose_evenly

_MIN_TOKENS = 3


class SentenceOrder(MaskedLm):
    """Swaps the parts of samples, hides whole words, and asks for both."""

    name: ClassVar[str] = "sentence_order"
    columns: ClassVar[tuple[str, ...]] = ("sentences",)
    purposes: ClassVar[tuple[Purpose, ...]] = (
        *CHOICE_PURPOSES, Purpose.SENTENCES, Purpose.SWAP, Purpose.CUT,
    )  # fmt: skip

    def __init__(self, special: SpecialIds, *, mask_ratio: float, sentence_weight: int) -> None:
        """Keep the ids, the share of tokens to predict and how many tokens a label counts as.

        Raises:
            ConfigError: A value is out of its range, or the vocabulary lacks a token.
        """
        super().__init__(special, mask_ratio=mask_ratio)
        self._weight = sentence_weight

    def choose(self, samples: Samples, draws: Draws) -> Choice:
        """Return the tokens of randomly chosen whole words."""
        words = find_units(samples.words_N, samples.lengths_B)
        return choose_evenly(words, samples, draws, ratio=self._ratio)

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples.

        Raises:
            DataError: The samples have no sentence bits.
        """
        draws = Draws(samples, seed=seed, purposes=(*COVER_PURPOSES, *self.purposes))
        samples, first_B = self._divide(samples, draws)
        is_swapped_B = (draws.of_rows(Purpose.SWAP) < 0.5) & (first_B < samples.lengths_B)
        samples, first_B = _swap(samples, first_B, is_swapped_B)
        chosen = self.choose(samples, draws)
        shown_ids_N = samples.ids_N.copy()
        shown_ids_N[chosen.tokens_P] = cover(
            samples, chosen, draws, mask=self._mask, ordinary=self._ordinary
        )
        has_two_B = first_B < samples.lengths_B
        ids_N, lengths_B, types_N = self._frame(shown_ids_N, samples.lengths_B, first_B)
        starts_B = np.cumsum(samples.lengths_B) - samples.lengths_B
        framed_starts_B = np.cumsum(lengths_B) - lengths_B
        places_P = chosen.tokens_P - starts_B[chosen.rows_P]
        behind_P = places_P >= first_B[chosen.rows_P]
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            target_positions_P=framed_starts_B[chosen.rows_P] + places_P + 1 + behind_P,
            target_ids_P=samples.ids_N[chosen.tokens_P],
            token_type_ids_N=types_N,
            sentence_labels_B=is_swapped_B.astype(np.int64),
            sentence_weights_B=np.where(has_two_B, self._weight, 0),
        )

    def _divide(self, samples: Samples, draws: Draws) -> tuple[Samples, Ints]:
        """Return samples cut to their lengths, and the tokens of the first part of each, [B]."""
        sentences = find_sentences(samples, self.name)
        num_cuts_B = np.where(samples.lengths_B < _MIN_TOKENS, 0, sentences.counts_B - 1)
        num_cuts_B = np.maximum(num_cuts_B, 0)
        cut_B = (draws.of_rows(Purpose.SENTENCES) * num_cuts_B).astype(np.int64) + 1
        starts_B = np.cumsum(samples.lengths_B) - samples.lengths_B
        has_two_B = num_cuts_B > 0
        cut_S = np.where(has_two_B, sentences.firsts_B + cut_B, 0)
        first_B = np.where(has_two_B, sentences.bounds[cut_S] - starts_B, samples.lengths_B)
        second_B = samples.lengths_B - first_B
        cuts_front_B = draws.of_rows(Purpose.CUT) < 0.5
        cuts_first_B = first_B >= second_B
        dropped_B = np.where(
            cuts_first_B,
            np.where(cuts_front_B, 0, first_B - 1),
            np.where(cuts_front_B, first_B, samples.lengths_B - 1),
        )
        # What is left of a word that lost its first token is a word.
        is_start_N = samples.words_N.copy()
        is_start_N[(starts_B + first_B)[has_two_B]] = True
        is_start_N[(starts_B + dropped_B + 1)[has_two_B & cuts_front_B]] = True
        is_kept_N = np.ones(samples.ids_N.size, dtype=np.bool_)
        is_kept_N[(starts_B + dropped_B)[has_two_B]] = False
        samples = reorder(
            replace(samples, words_N=is_start_N),
            np.flatnonzero(is_kept_N),
            samples.lengths_B - has_two_B,
        )
        return samples, first_B - (has_two_B & cuts_first_B)

    def _frame(self, ids_N: Ints, lengths_B: Ints, first_B: Ints) -> tuple[Ints, Ints, Ints]:
        """Return framed ids, the length of each document, and token types."""
        second_B = lengths_B - first_B
        starts_B = np.cumsum(lengths_B) - lengths_B
        firsts, firsts_B = frame(
            ids_N[spread(starts_B, first_B)], first_B, before=self._cls, after=self._sep
        )
        ends_B = second_B + (second_B > 0)
        seconds = np.full(int(ends_B.sum()), self._sep, dtype=np.int64)
        places_B = np.cumsum(ends_B) - ends_B
        seconds[spread(places_B, second_B)] = ids_N[spread(starts_B + first_B, second_B)]
        framed_N, framed_B = join_parts([(firsts, firsts_B), (seconds, ends_B)])
        types_N, _ = join_parts(
            [(np.zeros_like(firsts), firsts_B), (np.ones_like(seconds), ends_B)]
        )
        return framed_N, framed_B, types_N


def _swap(samples: Samples, first_B: Ints, is_swapped_B: np.ndarray) -> tuple[Samples, Ints]:
    """Return samples with the parts of some swapped, and the tokens of the part that is first."""
    starts_B = np.cumsum(samples.lengths_B) - samples.lengths_B
    second_B = samples.lengths_B - first_B
    leading_B = np.where(is_swapped_B, second_B, first_B)
    from_B = np.where(is_swapped_B, starts_B + first_B, starts_B)
    rest_B = np.where(is_swapped_B, starts_B, starts_B + first_B)
    lengths = np.stack([leading_B, samples.lengths_B - leading_B], axis=1).reshape(-1)
    tokens_N = spread(np.stack([from_B, rest_B], axis=1).reshape(-1), lengths)
    return reorder(samples, tokens_N, samples.lengths_B), leading_B
