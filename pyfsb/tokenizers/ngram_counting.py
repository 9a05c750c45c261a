# SPDX-License-Identifier: Apache-2.0
"""Counts of runs of token ids in bounded memory; used by `ngram_training`.

Shapes: R runs, L tokens of the longest run.

Source: lossy counting after Manku and Motwani 2002: when there are too many kinds of runs, those
counted least go; a run that goes and comes again lacks what it had.
"""

from __future__ import annotations

import numpy as np

from pyfsb.seeding import UInt64s, hash64
from pyfsb.tokenizers.ngram_trie import Ints

PADDING = -1
"""Fills the rows of runs that are shorter than the longest."""


class RunCounter:
    """Counts rows of token ids. The same rows in the same order give the same counts."""

    def __init__(self, max_length: int, *, max_runs: int) -> None:
        """Start at nothing.

        Args:
            max_length: Tokens of a run at most, L.
            max_runs: Kinds of runs that are kept, about half of them behind a clean-up.
        """
        self._max_runs = max_runs
        self._hashes: UInt64s = np.empty(0, dtype=np.uint64)
        self._counts: Ints = np.empty(0, dtype=np.int64)
        self._runs_RL = np.empty((0, max_length), dtype=np.int32)
        self.num_lost = 0
        """Kinds of runs that went because there were too many."""

    def add(self, runs_RL: Ints) -> None:
        """Count the rows of an array, shorter runs filled up with -1."""
        if not len(runs_RL):
            return
        # 64 bits tell runs apart: ten million are all different but once in 400,000 times.
        hashes = hash64(*(runs_RL[:, column] for column in range(runs_RL.shape[1])))
        kinds, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        hashes = np.concatenate([self._hashes, kinds])
        runs = np.concatenate([self._runs_RL, runs_RL[first].astype(np.int32)])
        self._hashes, first, places = np.unique(hashes, return_index=True, return_inverse=True)
        old = self._counts
        self._counts = np.zeros(self._hashes.size, dtype=np.int64)
        self._counts[places[: old.size]] += old  # no place stands twice on either side
        self._counts[places[old.size :]] += counts
        self._runs_RL = runs[first]
        if self._hashes.size > self._max_runs:
            self._clean_up()

    def result(self) -> tuple[Ints, Ints]:
        """Return the runs [R, L] and their counts [R], in the order of their tokens."""
        order = np.lexsort(self._runs_RL.T[::-1])
        return self._runs_RL[order].astype(np.int64), self._counts[order]

    def _clean_up(self) -> None:
        """Drop the least counted runs, all of a count together, until half the room is free."""
        bound = np.partition(self._counts, -(self._max_runs // 2))[-(self._max_runs // 2)]
        is_kept = self._counts > bound
        self.num_lost += int(is_kept.size - is_kept.sum())
        self._hashes, self._counts = self._hashes[is_kept], self._counts[is_kept]
        self._runs_RL = self._runs_RL[is_kept]
