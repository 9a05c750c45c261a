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
from pyfsb.objectives.draws import Purpose, draw, row_keys
from pyfsb.objectives.framing import frame
from pyfsb.objectives.protocol import Bits, Inputs, Ints, Samples
from pyfsb.objectives.special import SpecialIds

HIDDEN_RATIO: Final = 0.8
REPLACED_RATIO: Final = 0.1


class MaskedLm:
    """Hides tokens and asks for them; subclasses say which."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ()

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
    def choose(self, samples: Samples, *, seed: int) -> Ints:
        """Return the tokens to predict: indices into N, ascending, [P]."""

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the masked batch of these samples."""
        chosen_P = self.choose(samples, seed=seed)
        rows_P, places_P = locate(chosen_P, samples.lengths_B)
        hidden_ids_N = samples.ids_N.copy()
        hidden_ids_N[chosen_P] = cover(
            samples, chosen_P, rows_P, places_P, mask=self._mask, ordinary=self._ordinary, seed=seed
        )
        ids_N, lengths_B = frame(
            hidden_ids_N, samples.lengths_B, before=self._cls, after=self._sep
        )
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            target_positions_P=chosen_P + 2 * rows_P + 1,
            target_ids_P=samples.ids_N[chosen_P],
        )

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens: encoder, decoder."""
        return num_tokens + 2, 0


def locate(tokens_P: Ints, lengths_B: Ints) -> tuple[Ints, Ints]:
    """Return the samples of tokens and their places in these, [P] each."""
    ends_B = np.cumsum(lengths_B)
    rows_P = np.searchsorted(ends_B, tokens_P, side="right")
    return rows_P, tokens_P - (ends_B - lengths_B)[rows_P]


def cover(
    samples: Samples,
    chosen_P: Ints,
    rows_P: Ints,
    places_P: Ints,
    *,
    mask: int,
    ordinary: Ints,
    seed: int,
) -> Ints:
    """Return what is shown in place of chosen tokens: the mask, a random token or themselves, [P].

    Args:
        samples: The batch.
        chosen_P: Tokens to predict, indices into N.
        rows_P: Their samples.
        places_P: Their places in these.
        mask: Id of the mask.
        ordinary: Ids that a random token may be.
        seed: Run seed.
    """
    action_P = draw(row_keys(samples, seed=seed, purpose=Purpose.ACTION)[rows_P], places_P)
    shown_P = samples.ids_N[chosen_P]
    shown_P[action_P < HIDDEN_RATIO] = mask
    replaced = np.flatnonzero(
        (action_P >= HIDDEN_RATIO) & (action_P < HIDDEN_RATIO + REPLACED_RATIO)
    )
    keys_B = row_keys(samples, seed=seed, purpose=Purpose.REPLACEMENT)
    shown_P[replaced] = pick(ordinary, draw(keys_B[rows_P[replaced]], places_P[replaced]))
    return shown_P


def pick(ordinary: Ints, numbers_P: np.ndarray) -> Ints:
    """Return an ordinary id for each number in [0, 1)."""
    found: Ints = ordinary[(numbers_P * ordinary.size).astype(np.int64)]
    return found


def mark(chosen_P: Ints, num_tokens: int) -> Bits:
    """Return chosen tokens as booleans, [N]."""
    is_chosen_N = np.zeros(num_tokens, dtype=np.bool_)
    is_chosen_N[chosen_P] = True
    return is_chosen_N
