# SPDX-License-Identifier: Apache-2.0
"""Pegasus' gap sentences: the encoder reads masks in place of sentences, the decoder writes these.

Shapes: B samples, N tokens end to end, S sentences, M decoder tokens, P predicted positions.

The data stage chose the sentences (column `gaps`); here most of them become one mask each, in every
pass others, and the rest stays where it is. The decoder writes all of them and an end. A sample
without gap sentences (it has one sentence only) is read and nothing is asked of it.

Source: Zhang et al. 2020, sections 3.1 and 6.1.1; 90 % masked and 10 % left in place after the
published Randeng-Pegasus code (there in place of random sentences).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pyfsb.errors import DataError
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.framing import count_kept, frame, shift_right
from pyfsb.objectives.protocol import Inputs, Samples
from pyfsb.objectives.sentences import find_sentences
from pyfsb.objectives.special import SpecialIds


class GapSentences:
    """Puts masks in place of sentences and asks for these."""

    name: ClassVar[str] = "gap_sentences"
    columns: ClassVar[tuple[str, ...]] = ("sentences", "gaps")

    def __init__(self, special: SpecialIds, *, decoder_start: int, hidden_ratio: float) -> None:
        """Keep ids and rate.

        Args:
            special: Of the vocabulary.
            decoder_start: What the decoder begins with; padding in Pegasus.
            hidden_ratio: Share of the gap sentences that become a mask, in [0, 1].

        Raises:
            ConfigError: The vocabulary lacks a mask or an end.
        """
        self._mask = special.need("mask", self.name)
        self._eos = special.need("eos", self.name)
        self._start = decoder_start
        self._ratio = hidden_ratio

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples.

        Raises:
            DataError: The samples have no sentence bits or no gap sentences.
        """
        if samples.gaps_N is None:
            raise DataError(
                "gap_sentences needs gap sentences: prepare the data with data.columns: [gaps]"
            )
        sentences = find_sentences(samples, self.name)
        draws = Draws(samples, seed=seed, purposes=(Purpose.ACTION,))
        starts_S, lengths_S = sentences.bounds[:-1], sentences.lengths_U
        is_gap_S = samples.gaps_N[starts_S]
        is_hidden_S = is_gap_S & (draws.of_all(Purpose.ACTION, sentences.counts_B) < self._ratio)
        shown_ids_N = samples.ids_N.copy()
        shown_ids_N[starts_S[is_hidden_S]] = self._mask
        is_kept_N = ~np.repeat(is_hidden_S, lengths_S)
        is_kept_N[starts_S[is_hidden_S]] = True
        kept_B = count_kept(is_kept_N, samples.lengths_B)
        ids_N, lengths_B = frame(shown_ids_N[is_kept_N], kept_B, before=None, after=self._eos)
        is_gap_N = np.repeat(is_gap_S, lengths_S)
        written_B = count_kept(is_gap_N, samples.lengths_B)
        targets, decoder_B = frame(samples.ids_N[is_gap_N], written_B, before=None, after=self._eos)
        positions_P = np.flatnonzero(np.repeat(written_B > 0, decoder_B))
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            decoder_ids_M=shift_right(targets, decoder_B, start=self._start),
            decoder_lengths_B=decoder_B,
            target_positions_P=positions_P,
            target_ids_P=targets[positions_P],
        )

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens: encoder, decoder."""
        return num_tokens + 1, num_tokens + 1
