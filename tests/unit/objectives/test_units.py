from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.objectives.draws import threshold
from pyfsb.objectives.units import choose_units, find_units, order_within_rows, spread
from tests.helpers.objective_samples import make_samples


def test_units_of_samples_some_of_them_empty() -> None:
    starts = np.array([False, False, True, False, True, False])
    units = find_units(starts, np.array([3, 0, 2, 1, 0]))
    assert units.bounds.tolist() == [0, 2, 3, 4, 5, 6]
    assert units.firsts_B.tolist() == [0, 2, 2, 4, 5]
    assert units.counts_B.tolist() == [2, 0, 2, 1, 0]
    assert units.rows_U.tolist() == [0, 0, 2, 2, 3]
    assert units.rows_of(np.arange(5)).tolist() == [0, 0, 2, 2, 3]
    assert units.lengths_U.tolist() == [2, 1, 1, 1, 1]
    assert units.tokens_of(np.array([3, 0])).tolist() == [4, 0, 1]
    assert starts.tolist() == [False, False, True, False, True, False]


def test_spread() -> None:
    assert spread(np.array([5, 2, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=50))
def test_order_within_rows(pairs: list[tuple[int, int]]) -> None:
    rows = np.array(sorted(row for row, _ in pairs), dtype=np.int64)
    keys = np.array([key * 1000 + place for place, (_, key) in enumerate(pairs)], dtype=np.int64)
    for num_rows in (6, 1 << 20):
        order = order_within_rows(keys, rows, num_rows)
        assert order.tolist() == sorted(range(len(pairs)), key=lambda i: (rows[i], keys[i]))


def _choose(limit: np.uint64 | None) -> tuple[list[int], list[int]]:
    samples = make_samples([50, 1, 300, 3, 7] * 20)
    units = find_units(samples.words_N, samples.lengths_B)
    keys = np.random.default_rng(0).integers(0, 1 << 63, units.rows_U.size).astype(np.uint64) * 2
    found = choose_units(
        units, keys, 0.2 * samples.lengths_B, lambda rows, places: (rows * 7 + places) % 10 / 10,
        limit=limit,
    )  # fmt: skip
    rows = np.repeat(np.arange(100), samples.lengths_B)
    assert np.array_equal(found.rows_P, rows[found.tokens_P])
    assert np.array_equal(units.tokens_of(found.units_C), found.tokens_P)
    return found.units_C.tolist(), found.tokens_P.tolist()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.9])
def test_what_is_sorted_does_not_change_what_is_chosen(share: float) -> None:
    assert _choose(threshold(share)) == _choose(None)


def test_a_budget_is_filled_in_the_order_of_keys() -> None:
    units = find_units(np.array([True, False, True, True, False, False]), np.array([6]))
    keys = np.array([5.0, 1.0, 3.0])  # words of 2, 1 and 3 tokens
    for last, expected in ((0.0, [1, 2]), (0.34, [1])):
        found = choose_units(
            units, keys, np.array([2.0]), lambda rows, _, last=last: np.full(rows.size, last)
        )
        assert found.units_C.tolist() == expected
    assert (
        choose_units(units, keys, np.array([0.0]), lambda rows, _: np.zeros(rows.size)).units_C.size
        == 0
    )
