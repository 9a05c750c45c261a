# SPDX-License-Identifier: Apache-2.0
"""Masked language modelling of single tokens, for vocabularies whose pieces cross words.

Source: Devlin et al. 2019, section 3.1; the budget is met as in `whole_word`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.masked_lm import MaskedLm
from pyfsb.objectives.protocol import Samples
from pyfsb.objectives.units import Choice, find_units
from pyfsb.objectives.whole_word import CHOICE_PURPOSES, choose_evenly


class TokenMlm(MaskedLm):
    """Hides tokens and asks for them."""

    name: ClassVar[str] = "token_mlm"
    purposes: ClassVar[tuple[Purpose, ...]] = CHOICE_PURPOSES

    def choose(self, samples: Samples, draws: Draws) -> Choice:
        """Return randomly chosen tokens."""
        tokens = find_units(np.ones_like(samples.words_N), samples.lengths_B)
        return choose_evenly(tokens, samples, draws, ratio=self._ratio)
