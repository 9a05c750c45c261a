from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import ConfigError, DataError
from pyfsb.objectives.protocol import Samples
from pyfsb.objectives.text_infilling import TextInfilling
from tests.helpers.objective_samples import (
    CLS,
    FIRST,
    MASK,
    NUM_ORDINARY,
    PAD,
    SEP,
    SPECIAL,
    documents,
    make_samples,
    rows_of,
    samples_of,
)  # fmt: skip

ORDINARY = range(FIRST, FIRST + NUM_ORDINARY)
TAG = 1000
"""Ids from here on are one for each token, so that what is shown tells where it stood."""
BATCHES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def make(spans: Any = "words", ratio: float = 0.3, **options: Any) -> TextInfilling:
    values = {"mean_span_words": 3.0, "shuffles_sentences": True, **options}
    return TextInfilling(SPECIAL, decoder_start=PAD, mask_ratio=ratio, spans=spans, **values)


def tag(samples: Samples) -> Samples:
    return replace(samples, ids_N=np.arange(TAG, TAG + samples.ids_N.size))


@settings(max_examples=60)
@given(
    BATCHES, st.sampled_from(["words", "poisson"]), st.floats(0.02, 0.98), st.floats(0.1, 30.0),
    st.integers(0, 1 << 32),
)  # fmt: skip
def test_the_decoder_writes_the_text_and_no_document_is_too_long(
    lengths: list[int], spans: str, ratio: float, mean: float, seed: int
) -> None:
    samples = make_samples(lengths)
    objective = make(spans, ratio, mean_span_words=mean)
    found = documents(objective.build(samples, seed=seed))
    for row, document in zip(rows_of(samples), found, strict=True):
        written = [CLS, *row, SEP]
        assert document["targets"] == list(enumerate(written))
        assert document["decoder"] == [PAD, *written[:-1]]
        assert (document["ids"][0], document["ids"][-1]) == (CLS, SEP)
        assert set(document["ids"][1:-1]) <= {MASK, *ORDINARY}
        most = objective.sizes(len(row))
        assert len(document["ids"]) <= most[0] and len(document["decoder"]) <= most[1]


@settings(max_examples=40)
@given(BATCHES, st.sampled_from(["words", "poisson"]), st.integers(0, 1 << 32))
def test_masks_never_stand_side_by_side(lengths: list[int], spans: str, seed: int) -> None:
    samples = tag(make_samples(lengths, word_rate=0.9))
    for shown in documents(make(spans, 0.6).build(samples, seed=seed)):
        assert (MASK, MASK) not in pairwise(shown["ids"])


def test_masks_of_neighbouring_texts_stay_apart() -> None:
    for seed in range(10):  # all of a token is chosen; most are hidden
        inputs = make(ratio=0.98).build(make_samples([1] * 6), seed=seed)
        assert inputs.lengths_B.tolist() == [3] * 6


@pytest.mark.parametrize("spans", ["words", "poisson"])
def test_without_noise_to_speak_of_sentences_stay_whole(spans: str) -> None:
    samples = tag(make_samples([60] * 200, sentence_rate=0.15))
    number = np.cumsum(samples.sentences_N)
    places = np.arange(number.size) - np.searchsorted(number, number)
    moved = 0
    for document in documents(make(spans, 0.2).build(samples, seed=1)):
        seen = [own - TAG for own in document["ids"] if own >= TAG]
        order = [number[own] for own in seen]
        runs = [own for own, before in zip(order, [None, *order], strict=False) if own != before]
        assert len(runs) == len(set(runs))  # no sentence stands in two pieces
        for own in runs:
            inside = [places[token] for token in seen if number[token] == own]
            assert inside == sorted(inside)
        moved += runs != sorted(runs)
    assert moved > 190


def test_every_order_of_sentences_has_the_same_chance() -> None:
    samples = make_samples([6] * 3000, word_rate=1.0)
    samples = replace(
        samples, sentences_N=samples.positions_N % 2 == 0, ids_N=TAG + samples.positions_N
    )
    shown = make("words", 1e-9).build(samples, seed=2).input_ids_N.reshape(3000, 8)[:, 1:-1]
    assert np.array_equal(shown[:, 1::2], shown[:, ::2] + 1)
    orders = Counter(map(tuple, shown[:, ::2].tolist()))
    assert len(orders) == 6
    # Chi-square with 5 degrees of freedom: 20.5 is passed once in a thousand.
    assert sum((count - 500) ** 2 / 500 for count in orders.values()) < 20.5


@pytest.mark.parametrize("spans", ["words", "poisson"])
def test_sentences_stay_where_they_are_if_told_to(spans: str) -> None:
    samples = tag(make_samples([50] * 20))
    objective = make(spans, shuffles_sentences=False)
    inputs = objective.build(samples, seed=0)
    shown = inputs.input_ids_N[inputs.input_ids_N >= TAG]
    assert np.all(np.diff(shown) > 0)
    objective.build(replace(samples, sentences_N=None), seed=0)


def test_words_are_hidden_whole_80_10_10_of_the_share() -> None:
    samples = tag(make_samples([200] * 300, word_rate=0.5))
    shown = make().build(samples, seed=3).input_ids_N
    num = samples.ids_N.size
    replaced = np.isin(shown, ORDINARY).sum()
    visible = (shown >= TAG).sum()
    assert (num - visible - replaced) / num == pytest.approx(0.24, abs=0.005)
    assert replaced / num == pytest.approx(0.03, abs=0.003)
    # Masks of a span are one: half the tokens begin a word, so there are far fewer of them.
    assert (shown == MASK).sum() < 0.75 * (num - visible - replaced)


class Spans:
    """What the encoder reads of tagged words, taken apart."""

    def __init__(self, num_words: int, num_samples: int, *, seed: int, mean: float = 3.0) -> None:
        samples = make_samples([num_words] * num_samples, word_rate=1.0, sentence_rate=0.0)
        objective = make("poisson", mean_span_words=mean, shuffles_sentences=False)
        self.documents = documents(objective.build(tag(samples), seed=seed))
        self.lengths: list[list[int]] = []
        for row, document in enumerate(self.documents):
            bounds = [TAG + row * num_words - 1, TAG + (row + 1) * num_words]
            shown = [bounds[0], *document["ids"][1:-1], bounds[1]]
            self.lengths.append([
                shown[at + 1] - shown[at - 1] - 1 for at, own in enumerate(shown) if own == MASK
            ])  # fmt: skip


def test_poisson_spans_have_poisson_lengths_and_fill_the_share() -> None:
    spans = Spans(400, 150, seed=4)
    hidden = [sum(own) for own in spans.lengths]
    assert set(hidden) == {120}
    # The last span drawn is cut and stands anywhere; with about 40 it hardly moves the mean.
    flat = np.array([length for own in spans.lengths for length in own])
    assert flat.mean() == pytest.approx(3.0, rel=0.04)
    for length in range(8):
        expected = math.exp(-3) * 3**length / math.factorial(length)
        assert (flat == length).mean() == pytest.approx(expected, abs=0.015), length


def test_a_share_between_two_numbers_of_words_is_met_on_average() -> None:
    hidden = [sum(own) for own in Spans(11, 1500, seed=5).lengths]  # 3.3 words
    assert set(hidden) == {3, 4}
    assert np.mean(hidden) == pytest.approx(3.3, abs=0.045)


def test_every_placing_of_a_span_has_the_same_chance() -> None:
    spans = Spans(10, 1600, seed=6, mean=30.0)  # one span of 3 words: 8 places
    assert {tuple(own) for own in spans.lengths} == {(3,)}
    places = Counter(document["ids"].index(MASK) - 1 for document in spans.documents)
    assert set(places) == set(range(8))
    # Chi-square with 7 degrees of freedom: 24.3 is passed once in a thousand.
    assert sum((count - 200) ** 2 / 200 for count in places.values()) < 24.3


def test_poisson_spans_are_of_whole_words() -> None:
    samples = samples_of("甲 乙丙丁 戊己 庚 辛壬 癸子丑")
    words = ["甲", "乙丙丁", "戊己", "庚", "辛壬", "癸子丑"]
    tagged = tag(samples)
    starts = np.cumsum([0, *map(len, words)])
    for seed in range(50):
        shown = make("poisson", 0.5, shuffles_sentences=False).build(tagged, seed=seed).input_ids_N
        is_seen = np.isin(tagged.ids_N, shown)
        assert all(is_seen[a:b].all() or not is_seen[a:b].any() for a, b in pairwise(starts))
        assert (~is_seen[starts[:-1]]).sum() == 3


@pytest.mark.parametrize("spans", ["words", "poisson"])
def test_a_token_alone_is_hidden_or_shown(spans: str) -> None:
    found = Counter()
    for passes in range(200):
        samples = make_samples([1], sample_ids=[8], passes=passes)
        (document,) = documents(make(spans).build(samples, seed=1))
        assert document["targets"] == [(0, CLS), (1, samples.ids_N[0]), (2, SEP)]
        assert len(document["ids"]) == 3
        found[document["ids"][1] == MASK] += 1
    assert found[True] / 200 == pytest.approx(0.24 if spans == "words" else 0.3, abs=0.08)


@pytest.mark.parametrize("mean", [0.0, -1.0, 32.5])
def test_a_mean_outside_is_refused(mean: float) -> None:
    with pytest.raises(ConfigError, match="mean_span_words = .*expected more than 0, at most 32"):
        make("poisson", mean_span_words=mean)


def test_samples_without_sentences_are_refused() -> None:
    with pytest.raises(DataError, match="text_infilling needs to know where sentences begin"):
        make().build(replace(make_samples([9]), sentences_N=None), seed=0)
