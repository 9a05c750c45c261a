from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.training.batching import Position, StepPlan, StepPlanner, fill_ratio, share_out
from pyfsb.training.order import Part, SampleOrder, ShuffledOrder, build_order
from pyfsb.training.packing import fill_best_fit, fill_evenly

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200).map(np.array)
LAYOUTS = st.sampled_from(["flat", "packed", "buckets", "padded"])


def _planner(lengths: np.ndarray, *, tokens: int, seed: int) -> StepPlanner:
    return StepPlanner(lengths, ShuffledOrder(lengths.size, seed=seed), tokens=tokens)


@given(lengths=LENGTHS, tokens=st.integers(1, 400), seed=st.integers(0, 9))
def test_an_epoch_takes_every_sample_once_and_fills_the_budget(
    lengths: np.ndarray, tokens: int, seed: int
) -> None:
    planner = _planner(lengths, tokens=tokens, seed=seed)
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
    assert planner.count_steps(3, limit=num_steps) == num_steps


def test_steps_are_counted_over_pieces_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 5000)
    planner = _planner(lengths, tokens=700, seed=1)
    whole = planner.count_steps(2)
    monkeypatch.setattr("pyfsb.training.batching._COUNT_SAMPLES", 64)
    assert planner.count_steps(2) == whole
    assert whole // 2 <= planner.count_steps(2, limit=whole // 2) <= whole // 2


def test_a_step_depends_on_the_position_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 20_000)
    first, second = (_planner(lengths, tokens=9000, seed=1) for _ in range(2))
    position = Position()
    for _ in range(20):
        position = first.plan(position).next
    plans = [planner.plan(position).sample_ids for planner in (first, second)]
    assert plans[0].tolist() == plans[1].tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    lengths = np.full(50, 10)
    orders = {
        _planner(lengths, tokens=500, seed=seed).plan(Position(epoch=epoch)).sample_ids.tobytes()
        for seed in (1, 2) for epoch in (0, 1)
    }  # fmt: skip
    assert len(orders) == 4


@dataclass(frozen=True)
class Stretch:
    """A run of some steps with its own number of processes and sizes."""

    num_processes: int
    micro_tokens: int
    layout: str
    num_steps: int


STRETCHES = st.lists(
    st.builds(Stretch, st.integers(1, 8), st.integers(20, 600), LAYOUTS, st.integers(1, 9)),
    min_size=1, max_size=6,
)  # fmt: skip


@given(
    parts=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=3),
    window_shards=st.none() | st.integers(1, 3),
    stretches=STRETCHES,
    tokens=st.integers(30, 900),
    seed=st.integers(0, 5),
)
@settings(max_examples=60)
def test_any_schedule_of_world_sizes_continues_the_same_sequence(
    parts: list[list[int]], window_shards: int | None, stretches: list[Stretch], tokens: int,
    seed: int,
) -> None:  # fmt: skip
    def order() -> SampleOrder:
        return build_order(
            [Part(name=str(n), shard_samples=np.array(p)) for n, p in enumerate(parts)],
            seed=seed, held_out_samples=0, window_shards=window_shards,
        )  # fmt: skip

    num_samples = sum(map(sum, parts))
    lengths = np.random.default_rng(seed).integers(1, 80, num_samples)
    position, sequence = Position(), []
    for stretch in stretches:  # every stretch is a process of its own that knows the position alone
        planner = StepPlanner(lengths, order(), tokens=tokens)
        for _ in range(stretch.num_steps):
            plan = planner.plan(position)
            sequence.append(_computed(plan, lengths, stretch))
            position = plan.next
    planner, position, uninterrupted = StepPlanner(lengths, order(), tokens=tokens), Position(), []
    for _ in sequence:
        plan = planner.plan(position)
        uninterrupted.append(sorted(zip(plan.sample_ids, plan.passes, strict=True)))
        position = plan.next
    assert sequence == uninterrupted
    taken = [pair for step in sequence for pair in step]
    assert len(set(taken)) == len(taken)  # none repeated within a pass
    if len(parts) == 1:
        for number in range(position.epoch):
            assert sum(own_pass == number for _, own_pass in taken) == num_samples  # none lost


def _computed(plan: StepPlan, lengths: np.ndarray, stretch: Stretch) -> list[tuple[int, int]]:
    """Return what all processes together compute in a step."""
    shares = share_out(
        lengths[plan.sample_ids], num_processes=stretch.num_processes,
        micro_tokens=stretch.micro_tokens, layout=stretch.layout,
    )  # fmt: skip
    rows = np.concatenate([rows for slices in shares for rows in slices])
    return sorted(zip(plan.sample_ids[rows], plan.passes[rows], strict=True))


@given(
    lengths=LENGTHS, num_processes=st.integers(1, 5), micro_tokens=st.integers(1, 500),
    layout=LAYOUTS,
)  # fmt: skip
def test_a_step_is_shared_out_whole(
    lengths: np.ndarray, num_processes: int, micro_tokens: int, layout: str
) -> None:
    shares = share_out(
        lengths, num_processes=num_processes, micro_tokens=micro_tokens, layout=layout
    )
    assert len(shares) == num_processes
    assert len({len(slices) for slices in shares}) == 1
    rows = [row for slices in shares for rows in slices for row in rows.tolist()]
    assert sorted(rows) == list(range(lengths.size))
    is_padded = layout in ("buckets", "padded")
    for slices in shares:
        for part in slices:
            if part.size > 1:
                tokens = part.size * lengths[part].max() if is_padded else lengths[part].sum()
                assert tokens <= micro_tokens
    if layout == "padded":
        cut = sorted(part.tolist() for slices in shares for part in slices if part.size)
        assert [row for rows in cut for row in rows] == list(range(lengths.size))


@pytest.mark.parametrize("layout", ["buckets", "flat", "packed"])
def test_processes_have_about_equal_work(layout: str) -> None:
    lengths = np.random.default_rng(0).integers(5, 128, 500)
    shares = share_out(lengths, num_processes=2, micro_tokens=4096, layout=layout)
    costs = [
        [part.size * lengths[part].max() if layout == "buckets" else lengths[part].sum()
         for part in slices]
        for slices in shares
    ]  # fmt: skip
    if layout == "buckets":
        assert lengths.sum() / np.sum(costs) > 0.89
    else:
        assert np.ptp(np.concatenate(costs)) <= 5
    loads = [sum(cost) for cost in costs]
    assert max(loads) / min(loads) < 1.1


def test_flat_micro_batches_are_full_where_a_step_is() -> None:
    """A full budget needs no more micro-steps than its tokens."""
    rng = np.random.default_rng(1)
    lengths = np.minimum(np.exp(rng.normal(4.8, 0.8, 200_000)).astype(np.int64) + 3, 512)
    planner = _planner(lengths, tokens=65_536, seed=1)
    position, ratios = Position(), []
    for _ in range(20):
        plan = planner.plan(position)
        for layout in ("flat", "packed"):
            own = lengths[plan.sample_ids]
            shares = share_out(own, num_processes=4, micro_tokens=4096, layout=layout)
            ratios.append(fill_ratio(own, shares, micro_tokens=4096))
        position = plan.next
    assert np.mean(ratios) > 0.99
    assert min(ratios) > 0.98


def test_bins_that_run_over_are_repaired() -> None:
    sizes = np.array([7, 6, 5, 5, 4, 3])  # the emptiest bin first: 7 + 5 + 4 and 6 + 5 + 3
    bins = fill_evenly(sizes, 2, 15)
    assert bins is not None
    assert np.bincount(bins, weights=sizes).tolist() == [15, 15]
    assert fill_evenly(np.array([9, 9, 9]), 2, 15) is None


def test_best_fit_uses_the_tightest_room() -> None:
    sizes = np.array([6, 5, 4, 3, 2])
    assert fill_best_fit(sizes, 2, 10).tolist() == [0, 1, 0, 1, 1]  # type: ignore[union-attr]
    assert fill_best_fit(np.array([7, 6, 4, 3]), 2, 10).tolist() == [0, 1, 1, 0]  # type: ignore[union-attr]
    assert fill_best_fit(np.array([6, 6, 6]), 2, 10) is None


@given(sizes=LENGTHS, num_bins=st.integers(1, 9), capacity=st.integers(60, 400))
def test_best_fit_equals_placing_one_by_one(
    sizes: np.ndarray, num_bins: int, capacity: int
) -> None:
    sizes = -np.sort(-sizes)
    found = fill_best_fit(sizes, num_bins, capacity)
    room: list[int] = [capacity] * num_bins
    for size in sizes.tolist():
        fitting = [left for left in room if left >= size]
        if not fitting:
            assert found is None
            return
        room[room.index(min(fitting))] -= size
    assert found is not None
    loads = np.bincount(found, weights=sizes, minlength=num_bins)
    assert sorted((capacity - loads).tolist()) == sorted(room)


@pytest.mark.parametrize("num_processes", [1, 4])
@pytest.mark.parametrize("layout", ["flat", "packed", "buckets", "padded"])
def test_one_sample_goes_to_one_process(num_processes: int, layout: str) -> None:
    shares = share_out(np.array([7]), num_processes=num_processes, micro_tokens=100, layout=layout)
    assert [len(slices) for slices in shares] == [1] * num_processes
    assert sum(part.size for slices in shares for part in slices) == 1
