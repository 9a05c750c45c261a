# SPDX-License-Identifier: Apache-2.0
"""How inputs and targets are made from token samples: pure functions of samples and a key."""

from __future__ import annotations

from pyfsb.objectives.causal_lm import CausalLm
from pyfsb.objectives.making import make_objective
from pyfsb.objectives.protocol import Objective
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.whole_word import WholeWord

__all__ = ["CausalLm", "Objective", "SpecialIds", "WholeWord", "make_objective"]
