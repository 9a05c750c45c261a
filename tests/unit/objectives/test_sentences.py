from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pyfsb.errors import DataError
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.sentences import find_sentences, shuffle_sentences
from tests.helpers.objective_samples import make_samples, rows_of, samples_of


def _shuffle(samples, among=None):
    draws = Draws(samples, seed=3, purposes=(Purpose.SENTENCES,))
    return shuffle_sentences(samples, find_sentences(samples, "x"), draws, among_B=among)


def test_sentences_stay_whole_and_words_and_columns_travel_with_them() -> None:
    samples = make_samples([80, 30])
    found = _shuffle(samples)
    for old, new in zip(_sentences(samples), _sentences(found), strict=True):
        assert Counter(map(str, old)) == Counter(map(str, new))
        assert old != new


def _sentences(samples):
    columns = np.stack(
        [samples.ids_N, samples.words_N, samples.gaps_N, samples.knowledge_N], axis=1
    )
    found, start = [], 0
    for length in samples.lengths_B:
        own = slice(start, start + length)
        cuts = np.flatnonzero(samples.sentences_N[own])[1:]
        found.append([part.tolist() for part in np.split(columns[own], cuts)])
        start += length
    return found


def test_a_sample_cut_inside_a_word_begins_one_after_the_shuffle() -> None:
    samples = samples_of("甲乙|丙丁")
    cut = replace(samples, words_N=np.array([False, False, True, False]))
    assert _shuffle(cut).words_N.tolist() == [True, False, True, False]


def test_only_chosen_samples_are_shuffled() -> None:
    samples = make_samples([60] * 10)
    among = np.arange(10) % 2 == 0
    for row, (old, new) in enumerate(
        zip(rows_of(samples), rows_of(_shuffle(samples, among)), strict=True)
    ):
        assert (old == new) is (row % 2 == 1)


def test_all_orders_are_equally_likely() -> None:
    base = samples_of("甲|乙|丙")
    num = 6000
    many = replace(
        base, ids_N=np.tile(base.ids_N, num), words_N=np.tile(base.words_N, num),
        sentences_N=np.tile(base.sentences_N, num), lengths_B=np.full(num, 3),
        sample_ids_B=np.arange(num), passes_B=np.zeros(num, dtype=np.int64),
    )  # fmt: skip
    counts = Counter(map(tuple, rows_of(_shuffle(many))))
    assert len(counts) == 6
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 20.5


def test_samples_without_sentence_bits_are_refused() -> None:
    with pytest.raises(DataError, match="text_infilling needs to know where sentences begin"):
        find_sentences(replace(make_samples([3]), sentences_N=None), "text_infilling")
