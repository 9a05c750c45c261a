# SPDX-License-Identifier: Apache-2.0
"""Random numbers of a batch: each a function of seed, pass, purpose, sample and place alone.

Shapes: B samples, U things of all samples end to end (tokens, words, sentences …).

The hash of seed, pass, purpose and sample is computed once a sample and goes on with the place of
each thing, so a draw costs one round of hashing; the numbers are those of `seeding.uniform` with
all five keys. Called by objectives; never holds state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb.objectives.protocol import Ints, Samples
from pyfsb.seeding import hash64

UInt64s: TypeAlias = NDArray[np.uint64]
Floats: TypeAlias = NDArray[np.float64]


class Purpose(IntEnum):
    """What numbers are drawn for; two purposes of one objective must differ."""

    ORDER = 0
    """The order in which words fill the budget."""
    LAST = 1
    """Whether the word that overfills it is taken."""
    ACTION = 2
    """Whether a chosen token is hidden, replaced or kept."""
    REPLACEMENT = 3
    """The token that replaces it."""
    LENGTH = 4
    """Words of an n-gram, of a span."""
    SENTENCES = 5
    """The order of sentences, or where a sample is divided."""
    SWAP = 6
    """Whether parts, or neighbours, change places."""
    CUT = 7
    """Which end of a part is cut."""
    HIDDEN_CUTS = 8
    """Where the hidden tokens are divided into spans."""
    SHOWN_CUTS = 9
    """Where the others are divided."""
    ROUNDING = 10
    """Whether a count is rounded up."""
    KIND = 11
    """What is made of a sample."""
    INSERTION = 12
    """Whether a token is put in, and which."""
    INSERTED = 13
    """The token that is put in."""


class Draws:
    """The numbers of one batch."""

    def __init__(self, samples: Samples, *, seed: int, purposes: Sequence[Purpose]) -> None:
        """Hash what draws depend on beside their place.

        Args:
            samples: The batch.
            seed: Run seed.
            purposes: What numbers will be drawn for.
        """
        columns_K1 = np.array(purposes, dtype=np.uint64)[:, None]
        keys_KB = hash64(seed, samples.passes_B, columns_K1, samples.sample_ids_B)
        self._keys = dict(zip(purposes, keys_KB, strict=True))

    def bits_at(self, purpose: Purpose, rows_U: Ints, places_U: Ints) -> UInt64s:
        """Return 64 random bits for things at these places of these samples, [U]."""
        return hash64(self._keys[purpose].take(rows_U) + places_U.astype(np.uint64))

    def at(self, purpose: Purpose, rows_U: Ints, places_U: Ints) -> Floats:
        """Return numbers in [0, 1) for things at these places of these samples, [U]."""
        return to_unit(self.bits_at(purpose, rows_U, places_U))

    def bits_of_all(self, purpose: Purpose, counts_B: Ints) -> UInt64s:
        """Return 64 random bits for each of so many things of every sample, end to end, [U]."""
        firsts_B = np.cumsum(counts_B) - counts_B
        keys_U = np.repeat(self._keys[purpose] - firsts_B.astype(np.uint64), counts_B)
        keys_U += np.arange(keys_U.size, dtype=np.uint64)
        return hash64(keys_U)

    def of_all(self, purpose: Purpose, counts_B: Ints) -> Floats:
        """Return numbers in [0, 1) for each of so many things of every sample, end to end, [U]."""
        return to_unit(self.bits_of_all(purpose, counts_B))

    def of_rows(self, purpose: Purpose) -> Floats:
        """Return a number in [0, 1) for every sample, [B]."""
        return to_unit(hash64(self._keys[purpose]))


def to_unit(bits: UInt64s) -> Floats:
    """Return random bits as numbers in [0, 1), as `seeding.uniform` does."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def threshold(ratio: float) -> np.uint64:
    """Return what random bits lie below exactly when their number in [0, 1) is below a ratio."""
    return np.uint64(min(math.ceil(ratio * 2.0**53) << 11, 2**64 - 1))
