# SPDX-License-Identifier: Apache-2.0
"""Zhouwenwang's mix: some samples masked, some written from the start, some from a prefix.

Shapes: B samples, N tokens end to end, P predicted positions.

Token types say who sees whom: type 0 sees all of type 0, type 1 sees what is before it. A masked
sample has type 0 throughout and is asked for its hidden whole words; the others have a prefix of
type 0 ([CLS], and tokens up to a random place) and a tail of type 1, each token of which is asked
for at the position before it. Never reads a file.

Source: Zhouwenwang-Unified joins language modelling and masking in one model (mask by token types
as in fengshen's roformer); its shares were never published. Shares, and prefixes that end at any
token with the same chance, are our choice, after UniLM (Dong et al. 2019, section 2.3).
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.framing import frame
from pyfsb.objectives.masked_lm import COVER_PURPOSES, cover
from pyfsb.objectives.protocol import Inputs, Samples
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.units import find_units
from pyfsb.objectives.whole_word import CHOICE_PURPOSES, choose_evenly

_PURPOSES: Final = (*COVER_PURPOSES, *CHOICE_PURPOSES, Purpose.KIND, Purpose.CUT)


class PrefixLm:
    """Masks some samples and asks for the tails of the others."""

    name: ClassVar[str] = "prefix_lm"
    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, special: SpecialIds, *, mask_ratio: float, mlm_ratio: float, lm_ratio: float
    ) -> None:
        """Keep ids and shares.

        Args:
            special: Of the vocabulary.
            mask_ratio: Share of tokens to predict in masked samples, in (0, 1).
            mlm_ratio: Share of masked samples.
            lm_ratio: Share of samples that are written from their first token.

        Raises:
            ConfigError: A value is out of its range, or the vocabulary lacks a token.
        """
        if not 0.0 < mask_ratio < 1.0:
            raise ConfigError(f"objective.mask_ratio = {mask_ratio}; expected more than 0, below 1")
        self._cls = special.need("cls", self.name)
        self._sep = special.need("sep", self.name)
        self._mask = special.need("mask", self.name)
        self._ordinary = special.ordinary
        self._ratio = mask_ratio
        self._mlm_end, self._lm_end = mlm_ratio, mlm_ratio + lm_ratio

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples."""
        draws = Draws(samples, seed=seed, purposes=_PURPOSES)
        kind_B = draws.of_rows(Purpose.KIND)
        is_masked_B = kind_B < self._mlm_end
        words = find_units(samples.words_N, samples.lengths_B)
        chosen = choose_evenly(words, samples, draws, ratio=self._ratio, among_B=is_masked_B)
        shown_ids_N = samples.ids_N.copy()
        shown_ids_N[chosen.tokens_P] = cover(
            samples, chosen, draws, mask=self._mask, ordinary=self._ordinary
        )
        shown, framed_B = frame(shown_ids_N, samples.lengths_B, before=self._cls, after=self._sep)
        clean, _ = frame(samples.ids_N, samples.lengths_B, before=self._cls, after=self._sep)
        # Tokens of the prefix, [CLS] not counted: at least one, and one less than the sample.
        room_B = np.maximum(samples.lengths_B - 1, 0)
        prefix_B = np.minimum((draws.of_rows(Purpose.CUT) * room_B).astype(np.int64) + 1, room_B)
        prefix_B = np.where(kind_B < self._lm_end, 0, prefix_B)
        first_tail_B = np.where(is_masked_B, framed_B, prefix_B + 1)
        starts_B = np.cumsum(framed_B) - framed_B
        places_N = np.arange(shown.size) - np.repeat(starts_B, framed_B)
        types_N = (places_N >= np.repeat(first_tail_B, framed_B)).astype(np.int64)
        before_tail = np.flatnonzero(types_N) - 1
        hidden = chosen.tokens_P + 2 * chosen.rows_P + 1
        positions = np.concatenate([hidden, before_tail])
        targets = np.concatenate([clean[hidden], clean[before_tail + 1]])
        order_P = np.argsort(positions, kind="stable")
        return Inputs(
            input_ids_N=shown,
            lengths_B=framed_B,
            target_positions_P=positions[order_P],
            target_ids_P=targets[order_P],
            token_type_ids_N=types_N,
        )

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens: encoder, decoder."""
        return num_tokens + 2, 0
