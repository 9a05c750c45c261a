from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pyfsb.errors import DataError
from pyfsb.training.batching import Position, StepPlanner
from pyfsb.training.loader import LoadedStep, Loader
from pyfsb.training.order import ShuffledOrder
from pyfsb.training.protocol import Batch

LENGTHS = np.random.default_rng(0).integers(1, 60, 300)


class Source:
    """Rows that say which sample of which pass they are."""

    lengths: NDArray[np.int64] = LENGTHS

    def __init__(self, *, broken: int | None = None) -> None:
        self.broken = broken
        self.num_collated = 0
        self.threads: set[str] = set()

    def collate(self, sample_ids: NDArray[np.int64], passes: NDArray[np.int64]) -> Batch:
        self.num_collated += 1
        self.threads.add(threading.current_thread().name)
        if self.broken in sample_ids.tolist():
            raise DataError(f"sample {self.broken} is broken")
        rows = np.stack([sample_ids, passes])
        return Batch(
            inputs={"rows": torch.from_numpy(rows)}, num_targets=rows.shape[1],
            num_tokens=int(LENGTHS[sample_ids].sum()),
        )  # fmt: skip


def _loader(
    source: Source | None = None, *, rank: int = 0, size: int = 1, layout: str = "flat",
    steps_ahead: int = 2,
) -> Loader:  # fmt: skip
    planner = StepPlanner(LENGTHS, ShuffledOrder(LENGTHS.size, seed=1), tokens=500)
    return Loader(
        source or Source(), planner, group_rank=rank, group_size=size, micro_tokens=130,
        layout=layout, steps_ahead=steps_ahead,
    )  # fmt: skip


def _steps(loader: Loader, count: int, position: Position | None = None) -> Iterator[LoadedStep]:
    position = position or Position()
    for _ in range(count):
        step = loader.load(position)
        yield step
        position = step.plan.next


def _content(step: LoadedStep) -> list[tuple[bool, int, int, list[list[int]]]]:
    return [
        (is_real, batch.num_targets, batch.num_tokens, batch.inputs["rows"].tolist())
        for batch, is_real in step.batches
    ]


@pytest.mark.parametrize("layout", ["flat", "buckets"])
@pytest.mark.parametrize("rank", [0, 2])
def test_prepared_steps_are_those_made_on_demand(layout: str, rank: int) -> None:
    ahead = _loader(rank=rank, size=3, layout=layout)
    at_once = _loader(rank=rank, size=3, layout=layout, steps_ahead=0)
    with ahead, at_once:
        for first, second in zip(_steps(ahead, 40), _steps(at_once, 40), strict=True):
            assert _content(first) == _content(second)
            assert first.plan.next == second.plan.next
            assert first.wait_seconds >= 0.0


def test_all_ranks_together_have_the_step_once() -> None:
    loaders = [_loader(rank=rank, size=4) for rank in range(4)]
    for steps in zip(*(_steps(loader, 30) for loader in loaders), strict=True):
        assert len({len(step.batches) for step in steps}) == 1
        rows = [
            tuple(pair)
            for step in steps
            for batch, is_real in step.batches
            if is_real
            for pair in zip(*batch.inputs["rows"].tolist(), strict=True)
        ]
        plan = steps[0].plan
        assert sorted(rows) == sorted(zip(plan.sample_ids, plan.passes, strict=True))
    for loader in loaders:
        loader.close()


def test_a_rank_without_samples_computes_on_the_first_and_counts_nothing() -> None:
    planner = StepPlanner(np.array([9]), ShuffledOrder(1, seed=1), tokens=500)
    with Loader(
        Source(), planner, group_rank=1, group_size=2, micro_tokens=130, layout="flat"
    ) as loader:
        (found,) = _content(loader.load(Position()))
    assert found == (False, 0, 0, [[0], [0]])


def test_any_position_may_be_asked_for() -> None:
    with _loader() as loader, _loader(steps_ahead=0) as reference:
        list(_steps(loader, 7))
        for position in (Position(epoch=3, offset=10), Position(), Position(), Position(offset=99)):
            assert _content(loader.load(position)) == _content(reference.load(position))


def test_one_thread_prepares_a_few_steps_and_ends() -> None:
    source = Source()
    loader = _loader(source)
    step = loader.load(Position())
    for _ in range(200):
        if len(loader._ready) == 2:
            break
        threading.Event().wait(0.01)
    num_collated = source.num_collated
    threading.Event().wait(0.05)
    assert source.num_collated == num_collated <= 4 * len(step.batches)
    assert source.threads == {"loader"}
    loader.close()
    loader.close()
    assert loader._thread is not None
    assert not loader._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        loader.load(step.plan.next)


def test_an_error_is_raised_where_its_step_is_loaded() -> None:
    positions = [Position()]
    plans = []
    with _loader(steps_ahead=0) as reference:
        for step in _steps(reference, 5):
            positions.append(step.plan.next)
            plans.append(step.plan)
    source = Source(broken=int(plans[2].sample_ids[0]))
    with _loader(source) as loader:
        loader.load(positions[0])
        loader.load(positions[1])
        for _ in range(2):
            with pytest.raises(DataError, match=f"sample {source.broken} is broken"):
                loader.load(positions[2])
        source.broken = None
        assert loader.load(positions[2]).plan.sample_ids.tolist() == plans[2].sample_ids.tolist()
        assert loader.load(positions[3]).plan.sample_ids.tolist() == plans[3].sample_ids.tolist()


def test_closing_does_not_wait_for_a_step_that_nobody_loads() -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(Source):
        def collate(self, sample_ids: NDArray[np.int64], passes: NDArray[np.int64]) -> Batch:
            if self.num_collated > 8:
                entered.set()
                assert leave.wait(10)
            return super().collate(sample_ids, passes)

    loader = _loader(Slow())
    loader.load(Position())
    assert entered.wait(10)
    closing = threading.Thread(target=loader.close)
    closing.start()
    leave.set()
    closing.join(10)
    assert not closing.is_alive()
