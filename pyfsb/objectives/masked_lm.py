# SPDX-License-Identifier: Apache-2.0
"""What masked language modelling objectives share: a budget of tokens, hidden, replaced or kept.

Shapes: B samples, N tokens end to end, P predicted positions.

The objectives differ in which tokens they choose only. Never reads a file.

Source: 15 % of tokens, of them 80 % hidden, 10 % replaced, 10 % kept after Devlin et al. 2019,
section 3.1.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Final

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.draws import Draws, Floats, Purpose, threshold
from pyfsb.objectives.framing import frame
from pyfsb.objectives.protocol import Bits, Inputs, Ints, Samples
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.units import Choice

HIDDEN_RATIO: Final = 0.8
REPLACED_RATIO: Final = 0.1
COVER_PURPOSES: Final = (Purpose.ACTION, Purpose.REPLACEMENT)
"""What `cover` draws."""
_HIDDEN: Final = threshold(HIDDEN_RATIO)
_COVERED: Final = threshold(HIDDEN_RATIO + REPLACED_RATIO)


class MaskedLm:
    """Hides tokens and asks for them; subclasses say which."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ()
    purposes: ClassVar[tuple[Purpose, ...]]
    """What `choose` draws."""

    def __init__(self, special: SpecialIds, *, mask_ratio: float) -> None:
        """Keep the ids and the share of tokens to predict, in (0, 1).

        Raises:
            ConfigError: The ratio is 0 or 1, or the vocabulary lacks a token.
        """
        if not 0.0 < mask_ratio < 1.0:
            raise ConfigError(f"objective.mask_ratio = {mask_ratio}; expected more than 0, below 1")
        self._cls = special.need("cls", self.name)
        self._sep = special.need("sep", self.name)
        self._mask = special.need("mask", self.name)
        self._ordinary = special.ordinary
        self._ratio = mask_ratio

    @abstractmethod
    def choose(self, samples: Samples, draws: Draws) -> Choice:
        """Return the tokens to predict."""

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the masked batch of these samples."""
        draws = Draws(samples, seed=seed, purposes=(*COVER_PURPOSES, *self.purposes))
        chosen = self.choose(samples, draws)
        ids_N, lengths_B = frame(
            samples.ids_N, samples.lengths_B, before=self._cls, after=self._sep
        )
        positions_P = chosen.tokens_P + 2 * chosen.rows_P + 1
        targets_P = ids_N.take(positions_P)
        ids_N[positions_P] = cover(samples, chosen, draws, mask=self._mask, ordinary=self._ordinary)
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            target_positions_P=positions_P,
            target_ids_P=targets_P,
        )

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens: encoder, decoder."""
        return num_tokens + 2, 0


def cover(samples: Samples, chosen: Choice, draws: Draws, *, mask: int, ordinary: Ints) -> Ints:
    """Return what is shown in place of chosen tokens: the mask, a random token or themselves, [P].

    Args:
        samples: The batch.
        chosen: Tokens to predict.
        draws: Has `COVER_PURPOSES`.
        mask: Id of the mask.
        ordinary: Ids that a random token may be.
    """
    tokens_P, rows_P = chosen.tokens_P, chosen.rows_P
    starts_B = np.cumsum(samples.lengths_B) - samples.lengths_B
    places_P = tokens_P - starts_B.take(rows_P)
    action_P = draws.bits_at(Purpose.ACTION, rows_P, places_P)
    is_covered_P = action_P < _COVERED
    replaced = np.flatnonzero(is_covered_P & (action_P >= _HIDDEN))
    shown_P = np.where(is_covered_P, mask, samples.ids_N.take(tokens_P))
    numbers = draws.at(Purpose.REPLACEMENT, rows_P[replaced], places_P[replaced])
    shown_P[replaced] = pick(ordinary, numbers)
    return shown_P


def pick(ordinary: Ints, numbers_P: Floats) -> Ints:
    """Return an ordinary id for each number in [0, 1)."""
    found: Ints = ordinary[(numbers_P * ordinary.size).astype(np.int64)]
    return found


def mark(tokens_P: Ints, num_tokens: int) -> Bits:
    """Return chosen tokens as booleans, [N]."""
    is_chosen_N = np.zeros(num_tokens, dtype=np.bool_)
    is_chosen_N[tokens_P] = True
    return is_chosen_N
