# SPDX-License-Identifier: Apache-2.0
"""Causal language modelling: each token is predicted from those before it.

Every sample stands between [CLS] (begin) and [SEP] (end), so the first token and the end are
predicted too. Uses no randomness.

Source: Radford et al. 2019; begin and end by BERT's special tokens is our choice.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pyfsb.objectives.protocol import Inputs, Samples, SpecialIds, frame


class CausalLm:
    """Asks for the next token at every position."""

    name: ClassVar[str] = "causal_lm"
    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, special: SpecialIds) -> None:
        """Keep the special ids."""
        self._special = special

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples; the seed does not matter."""
        ids_N, lengths_B = frame(samples.ids_N, samples, self._special)
        has_next_N = np.ones(ids_N.size, dtype=np.bool_)
        has_next_N[np.cumsum(lengths_B) - 1] = False
        positions_P = np.flatnonzero(has_next_N)
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            target_positions_P=positions_P,
            target_ids_P=ids_N[positions_P + 1],
        )
