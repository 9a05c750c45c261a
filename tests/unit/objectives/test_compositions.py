from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pyfsb.objectives.compositions import choose_among, compose
from pyfsb.objectives.draws import Draws, Purpose
from tests.helpers.objective_samples import make_samples


def _draws(num_samples: int) -> Draws:
    samples = make_samples([1] * num_samples)
    return Draws(samples, seed=5, purposes=(Purpose.HIDDEN_CUTS,))


def test_sums_and_numbers_of_parts() -> None:
    totals, parts = np.array([1, 5, 9, 30, 4]), np.array([1, 1, 9, 7, 2])
    found = np.split(compose(_draws(5), Purpose.HIDDEN_CUTS, totals, parts), np.cumsum(parts)[:-1])
    assert [own.sum() for own in found] == totals.tolist()
    assert min(own.min() for own in found) == 1


def test_every_composition_is_equally_likely() -> None:
    num = 12_000  # 6 in 3 parts: 10 compositions
    found = compose(_draws(num), Purpose.HIDDEN_CUTS, np.full(num, 6), np.full(num, 3))
    counts = Counter(map(tuple, found.reshape(-1, 3).tolist()))
    assert len(counts) == 10
    # Chi-square with 9 degrees of freedom: 27.9 is passed once in a thousand.
    assert sum((count - 1200) ** 2 / 1200 for count in counts.values()) < 27.9


def test_choosing_none_and_all() -> None:
    totals, chosen = np.array([3, 0, 2, 4]), np.array([3, 0, 0, 2])
    found = np.split(
        choose_among(_draws(4), Purpose.HIDDEN_CUTS, totals, chosen), np.cumsum(totals)[:-1]
    )
    assert [int(own.sum()) for own in found] == chosen.tolist()


def test_every_thing_has_the_same_chance() -> None:
    num = 8000
    found = choose_among(_draws(num), Purpose.HIDDEN_CUTS, np.full(num, 7), np.full(num, 2))
    assert found.reshape(num, 7).mean(axis=0) == pytest.approx(2 / 7, abs=0.02)
