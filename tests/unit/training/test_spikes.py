from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pyfsb.config import SpikeSpec
from pyfsb.training.spikes import MIN_OVERFLOWS, GuardState, SpikeGuard, Verdict

SPEC = SpikeSpec(max_norm_ratio=5.0, num_reference_steps=4, max_skipped_steps=3, max_rewinds=1)


def seasoned() -> SpikeGuard:
    """Return a guard that has seen norms with a median of 2."""
    guard = SpikeGuard(SPEC)
    for norm in (1.0, 2.0, 2.0, 3.0):
        assert guard.note(1.0, norm) is Verdict.ACCEPT
    return guard


def test_a_norm_far_above_the_median_is_left_out_and_moves_nothing() -> None:
    guard = seasoned()
    assert guard.limit == 10.0
    assert guard.accepts(1.0, 10.0)
    assert not guard.accepts(1.0, 10.1)
    assert guard.note(1.0, 50.0) is Verdict.SKIP
    assert guard.limit == 10.0
    assert guard.state.num_skipped == 1
    assert guard.note(1.0, 2.0) is Verdict.ACCEPT
    assert guard.state.num_skipped == 0


def test_a_norm_that_clipping_leaves_alone_is_no_spike_after_calm_steps() -> None:
    guard = SpikeGuard(SPEC, clip_norm=1.0)
    for _ in range(4):
        assert guard.note(0.01, 0.02) is Verdict.ACCEPT
    assert guard.limit == 1.0
    assert guard.note(0.3, 0.82) is Verdict.ACCEPT
    assert guard.note(0.3, 1.1) is Verdict.SKIP


def test_before_enough_steps_only_what_is_no_number_is_left_out() -> None:
    guard = SpikeGuard(SPEC)
    assert guard.note(1.0, 1.0) is Verdict.ACCEPT
    assert guard.note(1.0, 1e9) is Verdict.ACCEPT
    assert guard.note(math.nan, 1.0) is Verdict.SKIP
    assert guard.note(1.0, math.inf) is Verdict.SKIP


def test_without_a_ratio_no_norm_is_a_spike() -> None:
    guard = SpikeGuard(SPEC.model_copy(update={"max_norm_ratio": None}))
    for norm in (1.0, 1.0, 1.0, 1.0, 1e9):
        assert guard.note(1.0, norm) is Verdict.ACCEPT


def test_steps_left_out_in_a_row_lead_back_and_then_to_the_end() -> None:
    guard = seasoned()
    saved = guard.state
    verdicts = [guard.note(1.0, 50.0) for _ in range(3)]
    assert verdicts == [Verdict.SKIP, Verdict.SKIP, Verdict.REWIND]
    guard.rewound(saved)
    assert guard.state == saved.model_copy(update={"num_rewinds": 1})
    verdicts = [guard.note(math.nan, 1.0) for _ in range(3)]
    assert verdicts == [Verdict.SKIP, Verdict.SKIP, Verdict.FAIL]


def test_a_loss_scale_on_its_way_down_is_no_spike_but_ends_too() -> None:
    guard = seasoned()
    verdicts = [guard.note(1.0, math.inf, is_overflow=True) for _ in range(MIN_OVERFLOWS)]
    assert set(verdicts[:-1]) == {Verdict.SKIP}
    assert verdicts[-1] is Verdict.REWIND
    assert guard.state.num_skipped == 0
    assert guard.note(1.0, 2.0) is Verdict.ACCEPT
    assert guard.state.num_overflows == 0
    # A loss that is no number is no matter of scale.
    assert guard.note(math.nan, math.inf, is_overflow=True) is Verdict.SKIP
    assert guard.state.num_skipped == 1


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 40.0, math.inf]), max_size=40), st.data())
def test_a_guard_goes_on_from_its_state(norms: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(norms)))
    whole = SpikeGuard(SPEC)
    verdicts = [whole.note(1.0, norm) for norm in norms]
    first = SpikeGuard(SPEC)
    found = [first.note(1.0, norm) for norm in norms[:cut]]
    rest = SpikeGuard(SPEC, GuardState.model_validate_json(first.state.model_dump_json()))
    found += [rest.note(1.0, norm) for norm in norms[cut:]]
    assert found == verdicts
    assert rest.state == whole.state
