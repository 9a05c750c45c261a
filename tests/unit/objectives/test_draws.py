from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.objectives.draws import Draws, Purpose, threshold, to_unit
from pyfsb.seeding import hash64, uniform
from tests.helpers.objective_samples import make_samples


def test_draws_are_those_of_uniform_with_all_keys() -> None:
    samples = make_samples([3, 5, 2], sample_ids=[7, 1 << 40, 3], passes=2)
    purposes = (Purpose.LAST, Purpose.ACTION)
    draws = Draws(samples, seed=11, purposes=purposes)
    for purpose in purposes:
        expected = uniform(
            11, 2, int(purpose), samples.sample_ids_B[samples.rows_N], samples.positions_N
        )
        assert np.array_equal(draws.of_all(purpose, samples.lengths_B), expected)
        found = draws.at(purpose, samples.rows_N, samples.positions_N)
        assert np.array_equal(found, expected)


def test_rows_draw_numbers_of_their_own() -> None:
    samples = make_samples([2] * 4000)
    draws = Draws(samples, seed=1, purposes=(Purpose.SWAP, Purpose.KIND))
    swap, kind = draws.of_rows(Purpose.SWAP), draws.of_rows(Purpose.KIND)
    assert swap.mean() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(swap, kind)[0, 1]) < 0.05


def test_samples_without_things_draw_nothing() -> None:
    samples = make_samples([4, 4, 4])
    draws = Draws(samples, seed=1, purposes=(Purpose.KIND,))
    counts = np.array([2, 0, 3])
    found = draws.of_all(Purpose.KIND, counts)
    rows, places = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 0, 1, 2])
    assert np.array_equal(found, draws.at(Purpose.KIND, rows, places))


@given(st.floats(0.0, 1.0))
def test_bits_below_a_threshold_are_numbers_below_a_ratio(ratio: float) -> None:
    bits = hash64(np.arange(2000))
    near = np.array([int(threshold(ratio))], dtype=np.uint64)
    for values in (bits, near, near - np.uint64(1 << 11), near - np.uint64(1)):
        below = values < threshold(ratio)
        if ratio < 1.0:
            assert np.array_equal(below, to_unit(values) < ratio)
