from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.training.batching import Position, StepPlanner, share_out

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200).map(np.array)


@given(lengths=LENGTHS, tokens=st.integers(1, 400), seed=st.integers(0, 9))
def test_an_epoch_takes_every_sample_once_and_fills_the_budget(
    lengths: np.ndarray, tokens: int, seed: int
) -> None:
    planner = StepPlanner(lengths, tokens=tokens, seed=seed)
    position, taken, num_steps = Position(), [], 0
    while position.epoch == 0:
        plan = planner.plan(position)
        used = lengths[plan.sample_ids].sum()
        assert used <= tokens or plan.sample_ids.size == 1
        if plan.next.epoch == 0:
            assert used + lengths[planner.plan(plan.next).sample_ids[0]] > tokens
        taken += plan.sample_ids.tolist()
        position, num_steps = plan.next, num_steps + 1
    assert sorted(taken) == list(range(lengths.size))
    assert position == Position(epoch=1)
    assert planner.count_steps(1) == num_steps


def test_a_step_depends_on_the_position_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 20_000)
    first, second = (StepPlanner(lengths, tokens=9000, seed=1) for _ in range(2))
    position = Position()
    for _ in range(20):
        position = first.plan(position).next
    plans = [planner.plan(position).sample_ids for planner in (first, second)]
    assert np.array_equal(*plans)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    lengths = np.full(50, 10)
    orders = {
        StepPlanner(lengths, tokens=500, seed=seed).plan(Position(epoch=epoch)).sample_ids.tobytes()
        for seed in (1, 2) for epoch in (0, 1)
    }  # fmt: skip
    assert len(orders) == 4


@given(
    lengths=LENGTHS, num_processes=st.integers(1, 5), micro_tokens=st.integers(1, 500)
)  # fmt: skip
def test_a_step_is_shared_out_whole(
    lengths: np.ndarray, num_processes: int, micro_tokens: int
) -> None:
    shares = share_out(lengths, num_processes=num_processes, micro_tokens=micro_tokens)
    assert len(shares) == num_processes
    assert len({len(slices) for slices in shares}) == 1
    rows = [row for slices in shares for rows in slices for row in rows.tolist()]
    assert sorted(rows) == list(range(lengths.size))
    for slices in shares:
        for part in slices:
            if part.size > 1:
                assert part.size * lengths[part].max() <= micro_tokens


def test_slices_hold_rows_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 128, 500)
    shares = share_out(lengths, num_processes=2, micro_tokens=4096)
    padded = sum(part.size * lengths[part].max() for slices in shares for part in slices)
    assert lengths.sum() / padded > 0.9
    loads = [sum(lengths[part].sum() for part in slices) for slices in shares]
    assert max(loads) / min(loads) < 1.1


@pytest.mark.parametrize("num_processes", [1, 4])
def test_one_sample_goes_to_one_process(num_processes: int) -> None:
    shares = share_out(np.array([7]), num_processes=num_processes, micro_tokens=100)
    assert sum(part.size for slices in shares for part in slices) == 1
