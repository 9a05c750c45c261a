from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import ConfigError
from pyfsb.training.order import (
    BlendedOrder,
    FollowedOrder,
    Needs,
    Part,
    SampleOrder,
    ShuffledOrder,
    WindowedOrder,
    apportion,
    build_order,
    held_out_ids,
)

SHARDS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any).map(np.array)
PARTS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), min_size=2, max_size=4)


def _all(order: SampleOrder, epoch: int) -> list[tuple[int, int]]:
    ids, passes = order.at(np.arange(order.num_samples), epoch)
    return list(zip(ids.tolist(), passes.tolist(), strict=True))


def test_everything_is_shuffled_together_and_passes_are_epochs() -> None:
    order = ShuffledOrder(50, seed=1)
    first, second = _all(order, 0), _all(order, 1)
    assert sorted(first) == [(number, 0) for number in range(50)]
    assert sorted(second) == [(number, 1) for number in range(50)]
    assert [sample for sample, _ in first] != [sample for sample, _ in second]
    assert first != _all(ShuffledOrder(50, seed=2), 0)


@given(shard_samples=SHARDS, window_shards=st.integers(1, 5), epoch=st.integers(0, 3))
def test_windows_hold_their_own_shards_only(
    shard_samples: np.ndarray, window_shards: int, epoch: int
) -> None:
    order = WindowedOrder(shard_samples, window_shards=window_shards, seed=3)
    samples = [sample for sample, _ in _all(order, epoch)]
    assert sorted(samples) == list(range(int(shard_samples.sum())))
    owner = np.repeat(np.arange(shard_samples.size), shard_samples)
    windows: list[tuple[int, ...]] = []
    for position, sample in enumerate(samples):
        (needs,) = order.needs(position, position, epoch)
        assert owner[sample] in needs.now
        assert needs.now.size <= window_shards
        if not windows or windows[-1] != tuple(needs.now):
            windows.append(tuple(needs.now))
            coming = tuple(needs.coming)
            expected = coming  # what was announced is what comes
        elif position + 1 < len(samples):
            (following,) = order.needs(position + 1, position + 1, epoch)
            assert tuple(following.now) in (tuple(needs.now), expected)
    assert (
        sorted(shard for window in windows for shard in window)
        == np.flatnonzero(shard_samples).tolist()
    )
    (last,) = order.needs(len(samples) - 1, len(samples) - 1, epoch)
    (first,) = order.needs(0, 0, epoch + 1)
    assert tuple(last.coming) == tuple(first.now)


def test_samples_of_a_window_are_mixed_and_windows_change_with_the_epoch() -> None:
    order = WindowedOrder(np.full(8, 100), window_shards=2, seed=1)
    samples = np.array([sample for sample, _ in _all(order, 0)])
    first_window = samples[:200] // 100
    assert len(set(first_window.tolist())) == 2
    assert (
        40 < np.count_nonzero(first_window[:100] == first_window[0]) < 60
        or len(set(first_window[:20].tolist())) == 2
    )
    windows = {tuple(sorted(order.needs(0, 0, epoch)[0].now)) for epoch in range(6)}
    assert len(windows) > 1


def test_positions_alone_agree_with_the_whole() -> None:
    parts = [Part(name=str(n), shard_samples=np.full(7, 30 + n)) for n in range(3)]
    for window_shards in (None, 2):
        order = build_order(parts, seed=5, window_shards=window_shards)
        whole_ids, whole_passes = order.at(np.arange(order.num_samples), 1)
        for start in (0, 17, 333):
            chosen = np.arange(start, start + 40)
            ids, passes = order.at(chosen, 1)
            assert np.array_equal(ids, whole_ids[chosen])
            assert np.array_equal(passes, whole_passes[chosen])


@given(
    parts=PARTS,
    window_shards=st.none() | st.integers(1, 3),
    weights=st.lists(st.floats(0.05, 5.0), min_size=4, max_size=4),
    num_epochs=st.integers(1, 4),
)
@settings(max_examples=40)
def test_a_blend_keeps_counts_and_loses_nothing_within_a_pass(
    parts: list[list[int]], window_shards: int | None, weights: list[float], num_epochs: int
) -> None:
    given_parts = [
        Part(name=str(n), shard_samples=np.array(shards), weight=weights[n])
        for n, shards in enumerate(parts)
    ]
    order = build_order(given_parts, seed=9, window_shards=window_shards)
    assert isinstance(order, BlendedOrder)
    sizes = [sum(shards) for shards in parts]
    ends = np.cumsum(sizes)
    seen: list[list[tuple[int, int]]] = [[] for _ in parts]
    expected = apportion(sum(sizes), weights[: len(parts)])
    for epoch in range(num_epochs):
        taken = _all(order, epoch)
        numbers = [int(np.searchsorted(ends, sample, side="right")) for sample, _ in taken]
        assert np.array_equal(np.bincount(numbers, minlength=len(parts)), expected)
        for number, pair in zip(numbers, taken, strict=True):
            seen[number].append(pair)
    for number, pairs in enumerate(seen):
        # Whole passes hold every sample once, the one that is under way holds none twice.
        assert len(set(pairs)) == len(pairs) == num_epochs * expected[number]
        per_pass = Counter(part_pass for _, part_pass in pairs)
        num_whole, rest = divmod(len(pairs), sizes[number])
        assert [per_pass[number] for number in range(num_whole)] == [sizes[number]] * num_whole
        assert per_pass.get(num_whole, 0) == rest


def test_a_blend_is_even_over_the_epoch() -> None:
    parts = [Part(name="a", shard_samples=np.array([9000])),
             Part(name="b", shard_samples=np.array([1000]))]  # fmt: skip
    ids, _ = build_order(parts, seed=1).at(np.arange(10_000), 0)
    shares = (ids.reshape(10, 1000) >= 9000).mean(axis=1)
    assert np.all(np.abs(shares - 0.1) < 0.03)


def test_a_windowed_blend_needs_few_shards_at_a_time() -> None:
    parts = [Part(name=str(n), shard_samples=np.full(20, 2000)) for n in range(2)]
    order = build_order(parts, seed=1, window_shards=2)
    for first in range(0, order.num_samples - 64, 3777):
        ids, _ = order.at(np.arange(first, first + 64), 0)
        needs = order.needs(first, first + 63, 0)
        for number, part in enumerate(needs):
            own = ids[(ids >= number * 40_000) & (ids < (number + 1) * 40_000)] - number * 40_000
            assert set((own // 2000).tolist()) <= set(part.now.tolist())
            assert part.now.size <= 4


def test_passes_go_on_where_a_stretch_ends_one() -> None:
    small = WindowedOrder(np.array([5, 5]), window_shards=1, seed=1)
    large = WindowedOrder(np.full(4, 10), window_shards=1, seed=2)
    order = BlendedOrder([small, large], np.array([0, 10]), [1.0, 1.0], seed=1)
    needs = order.needs(0, 49, 0)
    assert sorted(needs[0].now.tolist()) == [0, 1]


def test_weights_come_from_sizes_and_temperature() -> None:
    parts = [Part(name="a", shard_samples=np.array([9000])),
             Part(name="b", shard_samples=np.array([1000]))]  # fmt: skip
    plain, tempered = (build_order(parts, seed=1, temperature=t) for t in (1.0, 2.0))
    assert isinstance(plain, BlendedOrder)
    assert isinstance(tempered, BlendedOrder)
    assert plain.counts.tolist() == [9000, 1000]
    assert tempered.counts.tolist() == [7500, 2500]


@given(total=st.integers(0, 10**9), weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
def test_shares_are_whole_and_sum_up(total: int, weights: list[float]) -> None:
    counts = apportion(total, weights)
    assert counts.sum() == total
    assert np.all(np.abs(counts - np.array(weights) / sum(weights) * total) < 1.001)


def test_a_blend_of_a_trillion_samples_is_exact() -> None:
    orders = [ShuffledOrder(10**12, seed=1), ShuffledOrder(10**9, seed=2)]
    firsts = np.array([0, 10**12])
    order = BlendedOrder(orders, firsts, [1e12, 1e9], seed=1)
    assert order.counts.sum() == order.num_samples == 10**12 + 10**9
    last = order._dealt(np.array([order.num_samples]))
    assert [int(count[0]) for count in last] == order.counts.tolist()
    ids, passes = order.at(np.arange(order.num_samples - 3, order.num_samples), 2)
    assert np.all((ids >= 0) & (ids < order.num_samples))
    assert set(passes.tolist()) == {2}


@pytest.mark.parametrize("window_shards", [None, 2])
def test_held_out_samples_are_the_tails_and_in_no_order(window_shards: int | None) -> None:
    parts = [Part(name="a", shard_samples=np.array([10, 10, 3])),
             Part(name="b", shard_samples=np.array([20, 5]))]  # fmt: skip
    held = held_out_ids([23, 25], 4)
    assert held.tolist() == [19, 20, 21, 22, 44, 45, 46, 47]
    order = build_order(parts, seed=1, held_out_samples=4, window_shards=window_shards)
    assert order.num_samples == 40
    taken = {int(i) for epoch in range(4) for i in order.at(np.arange(40), epoch)[0]}
    assert taken == set(range(48)) - set(held.tolist())
    alone = build_order(parts[:1], seed=1, held_out_samples=13, window_shards=window_shards)
    assert sorted(alone.at(np.arange(10), 0)[0].tolist()) == list(range(10))


def test_a_part_that_is_held_out_whole_is_refused() -> None:
    parts = [Part(name="news", shard_samples=np.array([4]))]
    with pytest.raises(
        ConfigError, match=r"validation_samples = 4: corpus news has 4 .* at most 3"
    ):
        build_order(parts, seed=1, held_out_samples=4)


def test_one_corpus_keeps_the_order_of_the_plain_shuffle() -> None:
    order = build_order([Part(name="a", shard_samples=np.array([30, 20]))], seed=7)
    assert np.array_equal(
        order.at(np.arange(50), 1)[0], ShuffledOrder(50, seed=7).at(np.arange(50), 1)[0]
    )


def test_a_followed_order_tells_what_is_needed() -> None:
    told: list[tuple[Needs, ...]] = []
    within = WindowedOrder(np.full(4, 10), window_shards=2, seed=1)
    order = FollowedOrder(within, told.append)
    assert _all(order, 0) == _all(within, 0)
    assert not told
    order.follow(0, 5, 0)
    assert told[0][0].now.tolist() == within.needs(0, 5, 0)[0].now.tolist()
