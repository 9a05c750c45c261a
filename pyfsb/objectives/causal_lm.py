# SPDX-License-Identifier: Apache-2.0
"""Causal language modelling: each token is predicted from those before it.

Every sample stands between the vocabulary's begin and end tokens, so the first token and the end
are predicted too; GPT-2 has one token for both. Uses no randomness.

Source: Radford et al. 2019; where a vocabulary has no begin and end of its own, [CLS] and [SEP]
take their places, which is our choice.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pyfsb.objectives.framing import frame
from pyfsb.objectives.protocol import Inputs, Ints, Samples
from pyfsb.objectives.special import SpecialIds


class CausalLm:
    """Asks for the next token at every position."""

    name: ClassVar[str] = "causal_lm"
    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, special: SpecialIds) -> None:
        """Keep the special ids.

        Raises:
            ConfigError: The vocabulary lacks a begin or an end.
        """
        self._bos = special.need("bos", self.name)
        self._eos = special.need("eos", self.name)

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples; the seed does not matter."""
        ids_N, lengths_B = frame(
            samples.ids_N, samples.lengths_B, before=self._bos, after=self._eos
        )
        positions_P = next_positions(lengths_B)
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            target_positions_P=positions_P,
            target_ids_P=ids_N[positions_P + 1],
        )

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens: encoder, decoder."""
        return num_tokens + 2, 0


def next_positions(lengths_B: Ints) -> Ints:
    """Return every position that another one of its document follows, [P]."""
    has_next_N = np.ones(int(lengths_B.sum()), dtype=np.bool_)
    has_next_N[np.cumsum(lengths_B) - 1] = False
    return np.flatnonzero(has_next_N)
