# SPDX-License-Identifier: Apache-2.0
"""Random numbers of a batch: each a function of seed, pass, purpose, sample and place alone.

Shapes: B samples, U things of all samples end to end (tokens, words, sentences …).

The hash of seed, pass, purpose and sample is computed once a sample and goes on with the place of
each thing, so a draw costs one round of hashing; the numbers are those of `seeding.uniform` with
all five keys. Called by objectives; never holds state.
"""

from __future__ import annotations

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


def row_keys(samples: Samples, *, seed: int, purpose: Purpose) -> UInt64s:
    """Return what draws for a purpose depend on beside their place, [B]."""
    return hash64(seed, samples.passes_B, int(purpose), samples.sample_ids_B)


def draw_bits(keys_U: UInt64s, places_U: Ints) -> UInt64s:
    """Return 64 random bits for the place of each thing in its sample, [U]."""
    return hash64(keys_U + places_U.astype(np.uint64))


def draw(keys_U: UInt64s, places_U: Ints) -> Floats:
    """Return a number in [0, 1) for the place of each thing in its sample, [U]."""
    return to_unit(draw_bits(keys_U, places_U))


def draw_bits_of_all(keys_B: UInt64s, counts_B: Ints) -> UInt64s:
    """Return 64 random bits for each of so many things of every sample, end to end, [U]."""
    firsts_B = np.cumsum(counts_B) - counts_B
    keys_U = np.repeat(keys_B - firsts_B.astype(np.uint64), counts_B)
    keys_U += np.arange(keys_U.size, dtype=np.uint64)
    return hash64(keys_U)


def draw_all(keys_B: UInt64s, counts_B: Ints) -> Floats:
    """Return a number in [0, 1) for each of so many things of every sample, end to end, [U]."""
    return to_unit(draw_bits_of_all(keys_B, counts_B))


def draw_rows(samples: Samples, *, seed: int, purpose: Purpose) -> Floats:
    """Return a number in [0, 1) for every sample, [B]."""
    return to_unit(hash64(row_keys(samples, seed=seed, purpose=purpose)))


def to_unit(bits: UInt64s) -> Floats:
    """Return random bits as numbers in [0, 1), as `seeding.uniform` does."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
