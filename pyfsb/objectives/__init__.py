# SPDX-License-Identifier: Apache-2.0
"""How inputs and targets are made from token samples: pure functions of samples and a key."""

from __future__ import annotations

from pyfsb.config import ObjectiveName, ObjectiveSpec
from pyfsb.errors import UnknownNameError
from pyfsb.objectives.causal_lm import CausalLm
from pyfsb.objectives.protocol import Objective
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.whole_word import WholeWord

__all__ = ["CausalLm", "Objective", "SpecialIds", "WholeWord", "make_objective"]


def make_objective(
    spec: ObjectiveSpec, special: SpecialIds, *, decoder_start: int | None = None
) -> Objective:
    """Return the objective with this name.

    Raises:
        UnknownNameError: There is none.
    """
    if spec.name == ObjectiveName.WHOLE_WORD:
        return WholeWord(special, mask_ratio=spec.mask_ratio)
    if spec.name == ObjectiveName.CAUSAL_LM:
        return CausalLm(special)
    raise UnknownNameError("objective", str(spec.name), (WholeWord.name, CausalLm.name))
