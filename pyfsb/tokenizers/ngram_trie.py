# SPDX-License-Identifier: Apache-2.0
"""A trie of token ids in arrays, walked from every token of a batch at once.

Used by `ngram_lexicon`. The children of all nodes share one table with open addressing, so looking
is exact: no two runs are ever taken for one another.

Shapes: E entries, N tokens of a batch, C walks that are still on their way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import DataError

Ints: TypeAlias = NDArray[np.int64]

_ID_BITS: Final = 21
MAX_TOKEN_ID: Final = (1 << _ID_BITS) - 1
_NONE: Final = -1
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth 6.4)
_SPARE_BITS: Final = 2
"""The table has 4 to 8 places a key: a run that is not there is mostly seen at once."""


class Trie:
    """Runs of token ids, each with a number."""

    def __init__(self, runs: Sequence[Sequence[int]], numbers: Sequence[int]) -> None:
        """Build it.

        Args:
            runs: Token ids of the entries, none empty; of equal ones the last counts.
            numbers: The number of each entry, above 0.

        Raises:
            DataError: An id is negative or beyond 2^21 - 1.
        """
        lengths_E = np.fromiter((len(run) for run in runs), dtype=np.int64, count=len(runs))
        ids = np.fromiter((i for run in runs for i in run), dtype=np.int64, count=lengths_E.sum())
        if ids.size and (ids.min() < 0 or ids.max() > MAX_TOKEN_ID):
            raise DataError(f"token ids from 0 to {MAX_TOKEN_ID} are expected, found {ids.max()}")
        self.max_length = int(lengths_E.max(initial=0))
        firsts_E = np.cumsum(lengths_E) - lengths_E
        roots, first_nodes = np.unique(ids[firsts_E], return_inverse=True)
        self._roots = np.full(int(roots.max(initial=0)) + 2, _NONE, dtype=np.int64)
        self._roots[roots] = np.arange(roots.size)
        nodes_E, num_nodes, keys = first_nodes.astype(np.int64), roots.size, []
        for depth in range(1, self.max_length):
            goes_on = np.flatnonzero(lengths_E > depth)
            wanted = nodes_E[goes_on] << _ID_BITS | ids[firsts_E[goes_on] + depth]
            level, places = np.unique(wanted, return_inverse=True)
            nodes_E[goes_on] = num_nodes + places
            num_nodes += level.size
            keys.append(level)
        self._numbers = np.zeros(num_nodes, dtype=np.int64)
        self._numbers[nodes_E] = np.asarray(numbers, dtype=np.int64)
        self._fill(np.concatenate(keys) if keys else np.empty(0, np.int64), first=roots.size)

    def walk(self, ids_N: Ints, room_N: Ints) -> Iterator[tuple[int, Ints, Ints]]:
        """Find all entries in a batch, the shorter ones first.

        Args:
            ids_N: Token ids, documents end to end.
            room_N: Tokens from each token to the end of its document, itself included.

        Yields:
            Length, first tokens in order, and the numbers of the entries of this length.
        """
        starts_C = np.arange(ids_N.size)
        nodes_C = self._roots.take(ids_N, mode="clip")  # the last place is nobody's
        for length in range(1, self.max_length + 1):
            if length > 1:
                has_room = room_N[starts_C] >= length
                starts_C, nodes_C = starts_C[has_room], nodes_C[has_room]
                nodes_C = self._step(nodes_C, ids_N[starts_C + length - 1])
            goes_on = np.flatnonzero(nodes_C != _NONE)
            starts_C, nodes_C = starts_C[goes_on], nodes_C[goes_on]
            numbers_C = self._numbers[nodes_C]
            ends = np.flatnonzero(numbers_C)
            if ends.size:
                yield length, starts_C[ends], numbers_C[ends]

    def _fill(self, keys: Ints, *, first: int) -> None:
        """Enter the children: key number i leads to node `first` + i."""
        bits = max(4, int(keys.size).bit_length() + _SPARE_BITS)
        self._shift = np.uint64(64 - bits)
        self._keys = np.full(1 << bits, _NONE, dtype=np.int64)
        self._children = np.full(1 << bits, _NONE, dtype=np.int64)
        pending, places = np.arange(keys.size), self._place(keys)
        while pending.size:
            free = np.flatnonzero(self._keys[places] == _NONE)
            _, chosen = np.unique(places[free], return_index=True)
            chosen = free[chosen]  # one key for each free place; the others look further
            self._keys[places[chosen]] = keys[pending[chosen]]
            self._children[places[chosen]] = first + pending[chosen]
            is_pending = np.ones(pending.size, dtype=np.bool_)
            is_pending[chosen] = False
            pending = pending[is_pending]
            places = places[is_pending] + 1 & self._keys.size - 1

    def _step(self, nodes_C: Ints, ids_C: Ints) -> Ints:
        """Return the child of each node at a token; -1 where there is none."""
        keys_C = nodes_C << _ID_BITS | ids_C
        places = self._place(keys_C)
        found_C = self._keys[places]
        children_C = np.where(found_C == keys_C, self._children[places], _NONE)
        pending = np.flatnonzero((found_C != keys_C) & (found_C != _NONE))
        places = places[pending]
        while pending.size:
            places = places + 1 & self._keys.size - 1
            found = self._keys[places]
            is_hit = found == keys_C[pending]
            children_C[pending[is_hit]] = self._children[places[is_hit]]
            goes_on = ~is_hit & (found != _NONE)
            pending, places = pending[goes_on], places[goes_on]
        return children_C

    def _place(self, keys: Ints) -> Ints:
        return (keys.view(np.uint64) * _MULTIPLIER >> self._shift).view(np.int64)
