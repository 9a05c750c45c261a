from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pyfsb.errors import DataError
from pyfsb.objectives.draws import Draws
from pyfsb.objectives.knowledge_masking import KnowledgeMasking, describe_choice
from pyfsb.objectives.masked_lm import mark
from tests.helpers.objective_samples import SPECIAL, make_samples


def _choose(samples, *, ratio: float = 0.15, seed: int = 1):
    objective = KnowledgeMasking(SPECIAL, mask_ratio=ratio)
    draws = Draws(samples, seed=seed, purposes=objective.purposes)
    return mark(objective.choose(samples, draws).tokens_P, samples.ids_N.size)


def test_the_first_word_is_drawn_in_proportion_to_its_weight() -> None:
    """A budget of half a token takes at most one word; which one is Efraimidis' and Spirakis' law."""
    num, weights = 40_000, np.array([10, 20, 30, 40], dtype=np.uint8)
    base = make_samples([4] * num, word_rate=1.0, sentence_rate=0.0)
    samples = replace(base, words_N=np.ones(4 * num, dtype=bool), knowledge_N=np.tile(weights, num))
    rates = _choose(samples, ratio=0.25).reshape(num, 4).mean(axis=0)
    assert rates == pytest.approx(weights / weights.sum(), abs=0.01)


def test_equal_weights_give_equal_chances() -> None:
    base = make_samples([50] * 2000)
    samples = replace(base, knowledge_N=np.full(base.ids_N.size, 77, dtype=np.uint8))
    chosen = _choose(samples)
    assert chosen.mean() == pytest.approx(0.15, abs=0.003)
    report = describe_choice(samples, chosen)
    assert report.chosen_ratio_of_bin[77 // 16] == pytest.approx(0.15, abs=0.02)


def test_the_share_is_the_ratio_and_heavy_words_are_hidden_more_often() -> None:
    samples = make_samples([100] * 1500)
    chosen = _choose(samples)
    report = describe_choice(samples, chosen)
    assert report.realised_ratio == pytest.approx(0.15, abs=0.003)
    assert sum(report.words_of_bin) == np.count_nonzero(
        samples.words_N | (samples.positions_N == 0)
    )
    assert sum(report.chosen_of_bin) < sum(report.words_of_bin)
    ratios = report.chosen_ratio_of_bin
    assert all(after > before for before, after in zip(ratios[::3], ratios[3::3], strict=False))
    assert ratios[15] / ratios[3] == pytest.approx(248 / 56, rel=0.35)


def test_the_report_is_of_what_training_hides() -> None:
    samples = make_samples([60] * 40)
    objective = KnowledgeMasking(SPECIAL, mask_ratio=0.15)
    report = objective.describe(samples, seed=7)
    inputs = objective.build(samples, seed=7)
    assert report.realised_ratio == inputs.target_ids_P.size / samples.ids_N.size
    assert report != objective.describe(samples, seed=8)


def test_words_are_hidden_whole_and_passes_draw_anew() -> None:
    samples = make_samples([80] * 30)
    chosen = _choose(samples)
    inside = np.flatnonzero(~samples.words_N & (samples.positions_N > 0))
    assert np.array_equal(chosen[inside], chosen[inside - 1])
    again = _choose(make_samples([80] * 30, passes=1))
    assert not np.array_equal(chosen, again)


def test_weight_zero_counts_as_the_least() -> None:
    base = make_samples([20] * 50)
    samples = replace(base, knowledge_N=np.zeros(base.ids_N.size, dtype=np.uint8))
    assert _choose(samples, ratio=0.5).mean() == pytest.approx(0.5, abs=0.03)


def test_samples_without_weights_are_refused() -> None:
    with pytest.raises(DataError, match=r"data.columns: \[knowledge\]"):
        _choose(replace(make_samples([5]), knowledge_N=None))
