from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.errors import DataError
from pyfsb.models.row_objectives import frame_ids
from pyfsb.objectives.multiple_choice import (
    HIDDEN_RATES,
    NO_TARGET,
    ChoiceSample,
    MultipleChoice,
)
from pyfsb.objectives.row_objective import SampleKey, cut_longest_first
from tests.helpers.row_texts import (
    PIECES,
    WORDS,
    choice_samples,
    draw_keys,
    pieces_of,
    tiny_tokenize,
    tiny_tokenizer,
)

YES, NO = PIECES.index("是"), PIECES.index("非")


def objective(**changes: Any) -> MultipleChoice:
    settings = {
        "frame": frame_ids(tiny_tokenizer()), "yes_id": YES, "no_id": NO, "max_positions": 64,
        "ordinary": np.arange(5, len(PIECES)),
    }  # fmt: skip
    return MultipleChoice(**{**settings, **changes})


def targets_of(batch: Any) -> np.ndarray:
    targets = np.full(batch["input_ids"].size, NO_TARGET)
    targets[batch["target_positions"]] = batch["target_ids"]
    return targets.reshape(batch["input_ids"].shape)


def test_a_row_is_laid_out() -> None:
    row = objective().encode(choice_samples()[1], tiny_tokenize())
    assert pieces_of(row.ids_T) == [
        "[CLS]", "[MASK]", "书", "[MASK]", "人", "地", "[MASK]", "体", "育",
        "[SEP]", "李", "白", "在", "长", "安", "[SEP]", "写", "诗", "[SEP]",
    ]  # fmt: skip
    assert row.positions_T.tolist() == [0, 1, 2, 1, 2, 3, 1, 2, 3, *range(4, 14)]
    assert row.types_T.tolist() == [0, *[1] * 9, *[0] * 9]
    assert row.slots_S.tolist() == [1, 3, 6]
    assert not row.is_truncated


def test_options_do_not_see_each_other() -> None:
    row = objective().encode(choice_samples()[1], tiny_tokenize())
    visible = row.visible_TT
    blocks = [range(1, 3), range(3, 6), range(6, 9)]
    for block in blocks:
        seen = set(np.flatnonzero(visible[block[0]]).tolist())
        assert seen == {0, *block, *range(9, visible.shape[0])}
        assert all(visible[place].tolist() == visible[block[0]].tolist() for place in block)
    assert visible[0].all()
    assert visible[9:].all()


def test_119_options_leave_the_text_its_positions() -> None:
    names = [a + b + c for a in "李白杜甫长" for b in "一二三四五六七八" for c in "中国大"][:119]
    sample = ChoiceSample(text="好" * 200, options=tuple(names), question="什么？", answer=118)
    row = objective().encode(sample, tiny_tokenize())
    assert row.slots_S.size == len(names) == 119
    assert row.positions_T.max() == 63
    assert row.is_truncated
    assert row.ids_T.size == 1 + 119 * 4 + 1 + 3 + 1 + (64 - 1 - 4 - 1 - 3 - 1 - 1) + 1
    assert objective().collate([row], draw_keys(1)).arrays["answers"].tolist() == [118]


def test_texts_are_cut_the_longer_one_first() -> None:
    sample = ChoiceSample(
        text="好" * 50, text_pair="坏" * 20, options=("一", "二"), question="这？"
    )
    row = objective(max_positions=40).encode(sample, tiny_tokenize())
    counted = Counter(pieces_of(row.ids_T))
    # 31 = 40 - ([CLS], the longest option with its mask, four [SEP], two of the question)
    assert (counted["好"], counted["坏"]) == (16, 15)
    assert row.positions_T.max() == 39
    assert row.is_truncated


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 80))
def test_cutting_is_that_of_one_token_after_the_other(first: int, second: int, room: int) -> None:
    expected = [first, second]
    while sum(expected) > room:
        expected[0 if expected[0] > expected[1] else 1] -= 1
    assert cut_longest_first(first, second, room) == tuple(expected)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"options": ("好",)}, "two options, here is 1"),
        ({"options": ("好", " ")}, r"option 1 \(' '\) is empty"),
        ({"options": ("好", "坏", "好")}, r"option 2 \('好'\) stands twice"),
        ({"options": ("好", "坏" * 60)}, r"option 1 \('坏{20}'\) has 60 tokens and leaves 0 of 64"),
        ({"question": "好" * 60}, r"the question \('好{20}'\) has 60 tokens"),
        ({"answer": 2}, "answer 2 of 2 options"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], text: str) -> None:
    values = {"text": "好" * 30, "options": ("好", "坏"), **changes}
    with pytest.raises(DataError, match=text):
        objective().encode(ChoiceSample(**values), tiny_tokenize())


def test_too_many_options_are_named() -> None:
    options = tuple(f"{a}{b}" * 10 for a in "一二三四五六七八九十" * 2 for b in WORDS)
    with pytest.raises(DataError, match=r"options of \d+ tokens make a row of \d+; at most 4096"):
        objective().encode(
            ChoiceSample(text="好", options=tuple(dict.fromkeys(options))), tiny_tokenize()
        )


def test_the_sample_stays_as_it_is() -> None:
    for legacy in (False, True):
        for sample in choice_samples():
            before = copy.deepcopy(sample)
            objective(legacy_shortening=legacy, max_positions=48).encode(sample, tiny_tokenize())
            assert sample == before


def test_the_original_shortens_all_options_even_to_nothing() -> None:
    sample = ChoiceSample(text="好" * 30, options=("李白杜甫", "李白长安", "书"), answer=0)
    row = objective(legacy_shortening=True, max_positions=40).encode(sample, tiny_tokenize())
    halved = ["[CLS]", "[MASK]", "李", "白", "[MASK]", "李", "白", "[MASK]", "[SEP]"]
    assert pieces_of(row.ids_T)[:9] == halved
    assert row.ids_T.size == 40
    ours = objective(max_positions=40).encode(sample, tiny_tokenize())
    assert pieces_of(ours.ids_T)[1:6] == ["[MASK]", "李", "白", "杜", "甫"]


def test_shortening_ends() -> None:
    options = tuple(str(number) for number in range(40))
    with pytest.raises(DataError, match="40 options do not fit 64 tokens even when empty"):
        objective(legacy_shortening=True).encode(
            ChoiceSample(text="好", options=options), tiny_tokenize()
        )


def test_slots_say_yes_and_no_and_padding_says_nothing() -> None:
    ours = objective(hides_tokens=False)
    rows = [ours.encode(sample, tiny_tokenize()) for sample in choice_samples()]
    batch = ours.collate(rows, draw_keys(4))
    targets = targets_of(batch.arrays)
    for row, sample, found in zip(rows, choice_samples(), targets, strict=True):
        expected = [YES if n == sample.answer else NO for n in range(len(sample.options))]
        assert found[row.slots_S].tolist() == expected
        assert (found != NO_TARGET).sum() == len(expected)
    weights = batch.arrays["target_weights"]
    owners = batch.arrays["target_positions"] // targets.shape[1]
    assert np.bincount(owners, weights=weights).tolist() == pytest.approx([1.0] * 4)
    assert batch.num_targets == 4
    assert batch.num_tokens == sum(row.ids_T.size for row in rows)


def test_the_original_predicts_every_token_and_the_padding() -> None:
    ours = objective(hides_tokens=False, legacy_targets=True)
    rows = [ours.encode(sample, tiny_tokenize()) for sample in choice_samples()]
    targets = targets_of(ours.collate(rows, draw_keys(4)).arrays)
    for row, found in zip(rows, targets, strict=True):
        size = row.ids_T.size
        assert (found[size:] == 0).all()
        assert found[row.zone_end : size].tolist() == row.ids_T[row.zone_end :].tolist()


def test_hidden_tokens_keep_their_rates() -> None:
    ours = objective(max_positions=512)
    sample = ChoiceSample(text="李白在长安写诗" * 40, options=("好", "坏"), answer=0)
    row = ours.encode(sample, tiny_tokenize())
    rates, actions = [], Counter[str]()
    for number in range(400):
        batch = ours.collate([row], [SampleKey(seed=5, sample_id=number, data_pass=0)]).arrays
        targets = targets_of(batch)[0]
        ids = batch["input_ids"][0]
        chosen = targets != NO_TARGET
        chosen[row.slots_S] = False
        assert not chosen[: row.zone_end + 1].any()
        assert not chosen[row.ids_T == ours.frame.sep].any()
        assert (targets[chosen] == row.ids_T[chosen]).all()
        assert (ids[~chosen] == row.ids_T[~chosen]).all()
        rates.append(chosen.sum() / 280)
        masked, kept = ids == ours.frame.mask, ids == row.ids_T
        actions.update(masked=(chosen & masked).sum(), kept=(chosen & kept).sum(), all=chosen.sum())
    nearest = Counter(min(HIDDEN_RATES, key=lambda rate: abs(rate - found)) for found in rates)
    shares = [nearest[rate] / 400 for rate in HIDDEN_RATES]
    assert shares == pytest.approx([0.3, 0.3, 0.25, 0.15], abs=0.07)
    assert actions["masked"] / actions["all"] == pytest.approx(0.8, abs=0.02)
    assert actions["kept"] / actions["all"] == pytest.approx(0.1, abs=0.02)


def test_a_batch_is_a_function_of_its_keys() -> None:
    ours = objective()
    rows = [ours.encode(sample, tiny_tokenize()) for sample in choice_samples()] * 8

    def draw(data_pass: int, order: list[int]) -> list[list[int]]:
        keys = draw_keys(32, data_pass=data_pass)
        batch = ours.collate([rows[n] for n in order], [keys[n] for n in order]).arrays
        return [batch["input_ids"][place].tolist() for place in np.argsort(order)]

    straight, reversed_ = draw(0, list(range(32))), draw(0, list(range(31, -1, -1)))
    assert straight == reversed_
    assert straight != draw(1, list(range(32)))
