from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import ConfigError, DataError
from pyfsb.objectives.denoising import Denoising, NoiseRates, PromptIds
from pyfsb.objectives.protocol import Samples
from tests.helpers.objective_samples import (
    FIRST,
    NUM_ORDINARY,
    SEP,
    SPECIAL,
    documents,
    make_samples,
    rows_of,
)  # fmt: skip

ORDINARY = range(FIRST, FIRST + NUM_ORDINARY)
PROMPT = PromptIds(before=(500, 501), between=(502, 503, 504), after=(505,))
TAG = 1000
"""Ids from here on are one for each token, so that what is shown tells where it stood."""
RATE = st.floats(0.0, 0.5)
RATES = st.builds(
    NoiseRates, insert=RATE, delete=RATE, replace=RATE, swap=RATE, reorder=st.floats(0.0, 1.0)
)


def make(prompt: PromptIds = PROMPT, **rates: float) -> Denoising:
    none = {"insert": 0.0, "delete": 0.0, "replace": 0.0, "swap": 0.0, "reorder": 0.0}
    return Denoising(SPECIAL, prompt=prompt, rates=NoiseRates(**{**none, **rates}))


def tag(samples: Samples) -> Samples:
    return replace(samples, ids_N=np.arange(TAG, TAG + samples.ids_N.size))


def spoiled_of(document: dict, row: list[int]) -> list[int]:
    """The spoiled text; what stands around it is checked."""
    ids = document["ids"]
    written = [*row, 505, SEP]
    assert ids[:2] == [500, 501]
    assert ids[-len(written) - 3 :] == [502, 503, 504, *written]
    return ids[2 : -len(written) - 3]


def spoil(samples: Samples, **rates: float) -> list[list[int]]:
    found = documents(make(**rates).build(samples, seed=1))
    return [spoiled_of(own, row) for own, row in zip(found, rows_of(samples), strict=True)]


@settings(max_examples=80)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5), RATES, st.integers(0, 1 << 32),
    st.integers(0, 3), st.booleans(),
)  # fmt: skip
def test_a_document_is_spoiled_text_prompt_and_text_and_only_this_is_asked_for(
    lengths: list[int], rates: NoiseRates, seed: int, passes: int, without_insertion: bool
) -> None:
    rates = replace(rates, insert=0.0) if without_insertion else rates
    samples = make_samples(lengths, passes=passes)
    objective = Denoising(SPECIAL, prompt=PROMPT, rates=rates)
    inputs = objective.build(samples, seed=seed)
    assert inputs.token_type_ids_N is None and inputs.decoder_ids_M is None
    for row, document in zip(rows_of(samples), documents(inputs), strict=True):
        assert set(spoiled_of(document, row)) <= set(ORDINARY)
        num = len(document["ids"])
        asked = range(num - len(row) - 2, num)
        assert document["targets"] == [(place - 1, document["ids"][place]) for place in asked]
        assert [token for _, token in document["targets"]] == [*row, 505, SEP]
        assert (num, 0) <= objective.sizes(len(row))


@pytest.mark.parametrize("insert", [0.0, 1.0])
def test_the_longest_document_is_as_long_as_said(insert: float) -> None:
    objective = make(insert=insert)
    inputs = objective.build(make_samples([7]), seed=0)
    assert inputs.lengths_B.tolist() == [objective.sizes(7)[0]]


@pytest.mark.parametrize("part", ["before", "between", "after"])
def test_parts_of_the_prompt_may_be_empty(part: str) -> None:
    prompt = replace(PROMPT, **{part: ()})
    row = make_samples([1])
    (document,) = documents(make(prompt).build(row, seed=0))
    own = int(row.ids_N[0])
    ids = [*prompt.before, own, *prompt.between, own, *prompt.after, SEP]
    assert document["ids"] == ids
    asked = range(len(ids) - 2 - len(prompt.after), len(ids))
    assert document["targets"] == [(place - 1, ids[place]) for place in asked]


def test_without_noise_the_text_is_shown_as_it_is() -> None:
    samples = tag(make_samples([30, 1, 8]))
    assert spoil(samples) == rows_of(samples)


def check_drawn(tokens: list[int], num_tokens: int) -> None:
    """Random tokens are ordinary ones, any of them about as often, at a rate of 0.1."""
    counts = Counter(tokens)
    assert set(counts) == set(ORDINARY)
    assert min(counts.values()) > 0.6 * len(tokens) / NUM_ORDINARY
    assert max(counts.values()) < 1.4 * len(tokens) / NUM_ORDINARY
    assert len(tokens) / num_tokens == pytest.approx(0.1, abs=0.01)


def test_insertion_puts_random_tokens_behind_others() -> None:
    samples = tag(make_samples([50] * 400))
    found = spoil(samples, insert=0.1)
    flat = [token for own in found for token in own]
    assert [[token for token in own if token >= TAG] for own in found] == rows_of(samples)
    check_drawn([token for token in flat if token < TAG], samples.ids_N.size)
    # One behind a token at most, none before the first.
    assert all(own[0] >= TAG for own in found)
    assert all(max(first, second) >= TAG for own in found for first, second in pairwise(own))


def test_deletion_leaves_tokens_out() -> None:
    samples = tag(make_samples([50] * 400))
    found = spoil(samples, delete=0.1)
    assert all(
        own == [token for token in row if token in set(own)]
        for own, row in zip(found, rows_of(samples), strict=True)
    )
    share = 1 - sum(map(len, found)) / samples.ids_N.size
    assert share == pytest.approx(0.1, abs=0.01)


def test_replacement_keeps_the_others_in_place() -> None:
    samples = tag(make_samples([50] * 400))
    shown = np.concatenate(spoil(samples, replace=0.1))
    check_drawn(shown[shown != samples.ids_N].tolist(), samples.ids_N.size)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_swapped_tokens_change_places_with_a_neighbour(rate: float) -> None:
    samples = tag(make_samples([51] * 400))
    shown = np.concatenate(spoil(samples, swap=rate)) - TAG
    steps = shown - np.arange(shown.size)
    assert set(steps.tolist()) == {-1, 0, 1}
    assert np.array_equal(shown[shown], np.arange(shown.size))  # pairs only
    assert np.all(samples.rows_N[shown] == samples.rows_N)  # of one text
    # An odd text has a token without a neighbour.
    assert (steps != 0).mean() == pytest.approx(rate * 50 / 51, abs=0.015)


def test_either_neighbour_has_the_same_chance() -> None:
    samples = make_samples([3] * 4000)
    shown = np.array(spoil(replace(samples, ids_N=TAG + samples.positions_N), swap=1.0)) - TAG
    pairs = [tuple(own) for own in shown.tolist()]
    assert set(pairs) == {(1, 0, 2), (0, 2, 1)}
    # Four standard deviations.
    assert pairs.count((1, 0, 2)) / 4000 == pytest.approx(0.5, abs=0.032)


def test_reordering_keeps_sentences_whole_in_its_share_of_texts() -> None:
    samples = make_samples([60] * 1500)
    samples = tag(replace(samples, sentences_N=samples.positions_N % 10 == 0))
    shown = np.concatenate(spoil(samples, reorder=0.3)).reshape(1500, 6, 10)
    first = shown[:, :, 0] - np.arange(1500)[:, None] * 60 - TAG
    assert np.array_equal(shown, shown[:, :, :1] + np.arange(10))
    assert np.array_equal(np.sort(first, axis=1), np.tile(np.arange(6) * 10, (1500, 1)))
    moved = (first != np.arange(6) * 10).any(axis=1)
    assert moved.mean() == pytest.approx(0.3 * (1 - 1 / 720), abs=0.035)


def test_all_noise_at_once_has_its_rates() -> None:
    samples = tag(make_samples([100] * 300))
    found = spoil(samples, insert=0.05, delete=0.05, replace=0.05, swap=0.05, reorder=0.3)
    num = samples.ids_N.size
    shown = np.concatenate(found)
    kept = (shown >= TAG).sum() / num
    assert kept == pytest.approx(0.9, abs=0.006)
    assert (shown < TAG).sum() / num == pytest.approx(0.1, abs=0.006)
    assert len(set(shown[shown >= TAG].tolist())) == (shown >= TAG).sum()


def test_a_token_alone_may_be_left_out() -> None:
    sizes = set()
    for passes in range(40):
        samples = make_samples([1], passes=passes)
        (document,) = documents(make(delete=0.5, insert=0.2, swap=0.5).build(samples, seed=0))
        sizes.add(len(spoiled_of(document, samples.ids_N.tolist())))
    assert sizes == {0, 1, 2}


@pytest.mark.parametrize("after", [(), (505,)])
def test_a_prompt_without_tokens_is_refused(after: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"objective.denoising.template has no tokens around"):
        make(PromptIds(before=(), between=(), after=after))


def test_samples_without_sentences_are_refused() -> None:
    with pytest.raises(DataError, match="denoising needs to know where sentences begin"):
        make().build(replace(make_samples([9]), sentences_N=None), seed=0)
