# SPDX-License-Identifier: Apache-2.0
"""Causal language modelling: each token is predicted from those before it.

Every sample stands between [CLS] (begin) and [SEP] (end), so the first token and the end are
predicted too. Uses no randomness.

Source: Radford et al. 2019; begin and end by BERT's special tokens is our choice.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pyfsb.objectives.protocol import Inputs, Samples, SpecialIds, pad_rows


class CausalLm:
    """Asks for the next token at every position."""

    name: ClassVar[str] = "causal_lm"

    def __init__(self, special: SpecialIds) -> None:
        """Keep the special ids."""
        self._special = special

    def build(self, samples: Samples, *, seed: int, epoch: int) -> Inputs:
        """Return the batch of these samples; seed and epoch do not matter."""
        ids_BT, mask_BT = pad_rows(samples.ids_N, samples, self._special)
        has_next_BT = np.zeros_like(mask_BT, dtype=np.bool_)
        has_next_BT[:, :-1] = mask_BT[:, 1:] == 1
        positions_P = np.flatnonzero(has_next_BT)
        return Inputs(
            input_ids_BT=ids_BT,
            attention_mask_BT=mask_BT,
            target_positions_P=positions_P,
            target_ids_P=ids_BT.reshape(-1)[positions_P + 1],
        )
