# SPDX-License-Identifier: Apache-2.0
"""How inputs and targets are made from token samples: pure functions of samples and a key."""

from __future__ import annotations

from pyfsb.errors import UnknownNameError
from pyfsb.objectives.causal_lm import CausalLm
from pyfsb.objectives.protocol import Objective, SpecialIds
from pyfsb.objectives.whole_word import WholeWord

__all__ = ["CausalLm", "Objective", "SpecialIds", "WholeWord", "make_objective"]


def make_objective(name: str, special: SpecialIds, *, mask_ratio: float) -> Objective:
    """Return the objective with this name.

    Raises:
        UnknownNameError: There is none.
    """
    if name == WholeWord.name:
        return WholeWord(special, mask_ratio=mask_ratio)
    if name == CausalLm.name:
        return CausalLm(special)
    raise UnknownNameError("objective", name, (WholeWord.name, CausalLm.name))
