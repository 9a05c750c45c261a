# SPDX-License-Identifier: Apache-2.0
"""Randomness as a pure function: the same key gives the same number on every machine.

Every random choice about data is `uniform(seed, epoch, sample, …)`, so it depends on neither the
clock, nor the worker, nor the number of processes. All functions take scalars or arrays and
broadcast them. Used by `data`, `objectives` and `training`; never holds state.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Key: TypeAlias = "int | NDArray[np.integer]"
UInt64s: TypeAlias = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_NUM_ROUNDS = 6


def hash64(*keys: Key) -> UInt64s:
    """Hash integers, broadcast against each other, to 64 bits.

    Args:
        keys: Seeds, epochs, sample ids, positions …; negative values wrap around.

    Returns:
        Hashes in the broadcast shape (0-d for scalars).

    Source:
        The finaliser of SplitMix64 (Steele, Lea, Flood 2014, figure 15), chained over the keys.
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            state = _finalise(state + _GOLDEN + _as_uint64(key))
    return state


def uniform(*keys: Key) -> NDArray[np.float64]:
    """Return numbers in [0, 1) with 53 random bits, one for each broadcast key."""
    return (hash64(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(index: Key, size: Key, *keys: Key) -> NDArray[np.int64]:
    """Send positions of a keyed shuffle of `range(size)` to what stands there, in O(1) each.

    Args:
        index: Positions in [0, size).
        size: Number of items; the map is a bijection of range(size). An array gives each position
            a shuffle of its own.
        keys: What the shuffle depends on, such as seed and epoch; arrays as for `size`.

    Returns:
        Items, the shape of `index`.

    Source:
        A balanced Feistel network with cycle walking (Black and Rogaway 2002); the round function
        is `hash64`, six rounds are our choice.
    """
    flat = np.array(_as_uint64(index)).reshape(-1)
    sizes = _as_uint64(size)
    if flat.size and np.any(flat >= sizes):
        worst = int(np.argmax(flat >= sizes))
        limit = int(sizes if sizes.ndim == 0 else sizes[worst])
        raise IndexError(f"position {int(flat[worst])} of a shuffle of {limit}")
    half_bits = _half_bits(sizes)
    round_keys = [hash64(*keys, size, number) for number in range(_NUM_ROUNDS)]
    pending = np.arange(flat.size)
    while pending.size:
        flat[pending] = _feistel(
            flat[pending], _pick(half_bits, pending), [_pick(key, pending) for key in round_keys]
        )
        pending = pending[flat[pending] >= _pick(sizes, pending)]
    return flat.astype(np.int64).reshape(np.shape(index))


def _half_bits(sizes: UInt64s) -> UInt64s:
    """Return half the bits of the smallest even-sized range of powers of two around each size."""
    # frexp's exponent is the bit length; exact below 2**53.
    bits = np.frexp(np.maximum(sizes, np.uint64(2)).astype(np.float64) - 1.0)[1]
    return np.asarray((bits + 1) // 2).astype(np.uint64)


def _pick(values: UInt64s, chosen: NDArray[np.intp]) -> UInt64s:
    """Return the values of chosen positions; one value stands for all."""
    return values if values.ndim == 0 else values[chosen]


def _feistel(items: UInt64s, half_bits: UInt64s, round_keys: list[UInt64s]) -> UInt64s:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = items >> half_bits, items & mask
    for round_key in round_keys:
        with np.errstate(over="ignore"):
            left, right = right, left ^ (_finalise(right + round_key) & mask)
    return (left << half_bits) | right


def _finalise(state: UInt64s) -> UInt64s:
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def _as_uint64(key: Key) -> UInt64s:
    if isinstance(key, int):
        return np.asarray(key & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    return np.asarray(key).astype(np.uint64)
