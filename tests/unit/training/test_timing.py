"""Parts of a step exclude each other, and collectives report themselves."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pyfsb.training import timing
from pyfsb.training.timing import StepTimer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timer(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> StepTimer:
    monkeypatch.setattr(timing, "_listener", timing._Listener())
    return StepTimer(clock)


def test_a_nested_part_pauses_the_one_around_it(timer: StepTimer, clock: Clock) -> None:
    clock.now += 1  # in no part
    with timer.part("data"):
        clock.now += 2
    with timer.part("compute"):
        clock.now += 4
        with timer.part("communication"):
            clock.now += 8
        clock.now += 16
    parts = timer.take()
    assert parts.data_seconds == 2
    assert parts.compute_seconds == 20
    assert parts.communication_seconds == 8
    assert parts.seconds == 31
    assert timer.take().seconds == 0


def test_saving_and_validation_are_not_in_the_step(timer: StepTimer, clock: Clock) -> None:
    with timer.part("checkpoint"):
        clock.now += 3
    with timer.part("validation"):
        clock.now += 5
        with timer.part("communication"):
            clock.now += 1
    clock.now += 2
    parts = timer.take()
    assert (parts.checkpoint_seconds, parts.validation_seconds) == (3, 6)
    assert (parts.seconds, parts.communication_seconds) == (2, 0)


def test_an_error_closes_its_part(timer: StepTimer, clock: Clock) -> None:
    with pytest.raises(KeyError), timer.part("compute"):
        clock.now += 1
        raise KeyError
    clock.now += 5
    assert timer.take().compute_seconds == 1


def test_other_threads_count_nothing(timer: StepTimer, clock: Clock) -> None:
    def work() -> None:
        with timer.part("communication"):
            clock.now += 7

    with timer.part("compute"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    parts = timer.take()
    assert (parts.compute_seconds, parts.communication_seconds) == (7, 0)


class Work:
    """A collective under way."""

    def __init__(self, clock: Clock, *, seconds: float = 0.0, is_done: bool = True) -> None:
        self.clock, self.seconds, self.is_done = clock, seconds, is_done

    def wait(self) -> str:
        self.clock.now += self.seconds
        return "waited"

    def is_completed(self) -> bool:
        return self.is_done

    def _get_duration(self) -> float:
        return 2000.0


def test_host_time_of_a_collective_and_of_its_wait_counts(timer: StepTimer, clock: Clock) -> None:
    def reduce(tensor: int, async_op: bool = False) -> Any:
        clock.now += 1
        return Work(clock, seconds=10) if async_op else None

    timed = timing._time_on_host(reduce, has_handle=True)
    with timer.part("compute"):
        assert timed(1) is None
        work = timed(1, async_op=True)
        clock.now += 100
        assert work.wait() == "waited"
        assert work.is_completed()
    parts = timer.take()
    assert (parts.communication_seconds, parts.compute_seconds) == (12, 100)


def test_device_time_comes_from_the_backend_when_it_is_done(timer: StepTimer, clock: Clock) -> None:
    asked: list[bool] = []
    works = [Work(clock), Work(clock), Work(clock, is_done=False)]

    def reduce(tensor: int, async_op: bool = False) -> Any:
        asked.append(async_op)
        return works[len(asked) - 1]

    timed = timing._time_on_device(reduce, has_handle=True)
    assert timed(1) is None  # waited for, as it was asked
    assert timed(1, async_op=True) is works[1]
    timed(1)
    assert asked == [True, True, True]
    assert timer.take().communication_seconds == 4.0
    works[2].is_done = True
    assert timer.take().communication_seconds == 2.0


def test_real_collectives_are_timed_and_only_once(tmp_path: Any) -> None:
    import torch
    from torch import distributed

    timing.time_collectives(on_device=False)
    wrapped = distributed.all_reduce
    timing.time_collectives(on_device=False)
    assert distributed.all_reduce is wrapped
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        timer = StepTimer()
        distributed.all_reduce(torch.ones(100_000))
        work = distributed.all_reduce(torch.ones(10), async_op=True)
        work.wait()
        distributed.all_gather_object([None], "x")
        parts = timer.take()
        assert 0 < parts.communication_seconds <= parts.seconds
    finally:
        distributed.destroy_process_group()
