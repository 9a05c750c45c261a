# SPDX-License-Identifier: Apache-2.0
"""What an objective takes and gives.

Shapes: B samples, N tokens of all samples end to end, T tokens of the longest padded row,
P predicted positions.

Training reads samples from shards and hands them to an objective; the model's head is computed at
the predicted positions only. Objectives never read a file and never hold state: randomness is a
key of integers (seed, epoch) that they combine with the sample ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids of a vocabulary that objectives must know."""

    pad: int
    cls: int
    sep: int
    mask: int
    ordinary: Ints
    """Ids that a random replacement may take: no special, no unused one."""

    @classmethod
    def of(cls, pieces: Sequence[str]) -> Self:
        """Find them in a vocabulary's pieces."""
        ordinary = [
            number
            for number, piece in enumerate(pieces)
            if not (piece.startswith("[") and piece.endswith("]") and len(piece) > 2)
        ]
        return cls(
            pad=pieces.index("[PAD]"),
            cls=pieces.index("[CLS]"),
            sep=pieces.index("[SEP]"),
            mask=pieces.index("[MASK]"),
            ordinary=np.array(ordinary, dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples of a batch, end to end, without special tokens."""

    ids_N: Ints
    """Token ids."""
    words_N: Bits
    """Word-start bits."""
    lengths_B: Ints
    """Tokens of each sample; their sum is N."""
    sample_ids_B: Ints
    """Numbers of the samples in the shards: the key of their randomness."""

    @property
    def rows_N(self) -> Ints:
        """The row of each token."""
        return np.repeat(np.arange(self.lengths_B.size), self.lengths_B)

    @property
    def positions_N(self) -> Ints:
        """The position of each token in its sample, from 0."""
        starts = np.cumsum(self.lengths_B) - self.lengths_B
        return np.arange(self.ids_N.size) - np.repeat(starts, self.lengths_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A padded batch and what to predict where."""

    input_ids_BT: Ints
    """Ids with [CLS] first, [SEP] last and padding after it."""
    attention_mask_BT: Ints
    """1 on tokens, 0 on padding."""
    target_positions_P: Ints
    """Where to predict: row x T + column."""
    target_ids_P: Ints
    """What is right there."""

    @property
    def num_tokens(self) -> int:
        """Tokens, padding not counted."""
        return int(self.attention_mask_BT.sum())

    @property
    def num_targets(self) -> int:
        """Predicted positions."""
        return int(self.target_ids_P.size)


class Objective(Protocol):
    """Makes inputs and targets."""

    name: ClassVar[str]
    """Name in the run spec."""

    def build(self, samples: Samples, *, seed: int, epoch: int) -> Inputs:
        """Return the batch of these samples; the same arguments give the same batch."""


def pad_rows(ids_N: Ints, samples: Samples, special: SpecialIds) -> tuple[Ints, Ints]:
    """Put samples between [CLS] and [SEP] into padded rows.

    Returns:
        Ids and attention mask, both [B, T] with T = longest sample + 2.
    """
    lengths = samples.lengths_B
    width = int(lengths.max(initial=0)) + 2
    ids_BT = np.full((lengths.size, width), special.pad, dtype=np.int64)
    ids_BT[:, 0] = special.cls
    ids_BT[np.arange(lengths.size), lengths + 1] = special.sep
    ids_BT[samples.rows_N, samples.positions_N + 1] = ids_N
    mask_BT = (np.arange(width) < (lengths + 2)[:, None]).astype(np.int64)
    return ids_BT, mask_BT
