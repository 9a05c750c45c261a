from __future__ import annotations

import numpy as np
import pytest

from pyfsb.errors import ConfigError
from pyfsb.objectives.draws import Draws
from pyfsb.objectives.masked_lm import mark
from pyfsb.objectives.ngram_mlm import NgramMlm
from pyfsb.objectives.units import find_units
from tests.helpers.objective_samples import SPECIAL, make_samples


def _make(max_words: int = 3, ratio: float = 0.15) -> NgramMlm:
    return NgramMlm(SPECIAL, mask_ratio=ratio, max_words=max_words)


def _divide(objective, samples):
    words = find_units(samples.words_N, samples.lengths_B)
    draws = Draws(samples, seed=3, purposes=objective.purposes)
    return words, objective.divide(words, draws)


@pytest.mark.parametrize("max_words", [1, 2, 3, 5])
def test_lengths_fall_as_one_over_n(max_words: int) -> None:
    samples = make_samples([400] * 200)
    words, ngrams = _divide(_make(max_words), samples)
    num_words = np.diff(np.searchsorted(words.bounds, ngrams.bounds))
    is_last = np.diff(ngrams.rows_U, append=-1) != 0
    counts = np.bincount(num_words[~is_last], minlength=max_words + 1)[1:]
    expected = 1 / np.arange(1, max_words + 1)
    assert counts.size == max_words
    assert counts / counts.sum() == pytest.approx(expected / expected.sum(), abs=0.01)


def test_ngrams_are_whole_words_of_one_sample_without_gaps() -> None:
    samples = make_samples([50, 1, 9, 70, 2])
    words, ngrams = _divide(_make(), samples)
    assert set(ngrams.bounds.tolist()) <= set(words.bounds.tolist())
    assert set((np.cumsum(samples.lengths_B) - samples.lengths_B).tolist()) <= set(
        ngrams.bounds.tolist()
    )
    assert ngrams.bounds[-1] == 132
    assert np.array_equal(
        ngrams.bounds[ngrams.firsts_B], np.cumsum(samples.lengths_B) - samples.lengths_B
    )


def test_words_are_hidden_whole_and_the_share_is_the_ratio() -> None:
    samples = make_samples([120] * 600)
    objective = _make()
    draws = Draws(samples, seed=1, purposes=(*objective.purposes,))
    chosen_N = mark(objective.choose(samples, draws).tokens_P, samples.ids_N.size)
    assert chosen_N.mean() == pytest.approx(0.15, abs=0.003)
    inside = np.flatnonzero(~samples.words_N & (samples.positions_N > 0))
    assert np.array_equal(chosen_N[inside], chosen_N[inside - 1])
    # Neighbouring words are hidden together much more often than by whole_word.
    firsts = np.flatnonzero(samples.words_N | (samples.positions_N == 0))
    both = (chosen_N[firsts[1:]] & chosen_N[firsts[:-1]]).mean() / chosen_N[firsts].mean()
    assert both > 0.4


def test_a_word_in_the_middle_has_the_chance_of_the_others() -> None:
    samples = make_samples([30] * 5000, word_rate=1.0)
    objective = _make()
    draws = Draws(samples, seed=1, purposes=(*objective.purposes,))
    chosen_N = mark(objective.choose(samples, draws).tokens_P, samples.ids_N.size)
    assert chosen_N.reshape(5000, 30).mean(axis=0) == pytest.approx(0.15, abs=0.02)


def test_no_words_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_ngram_words = 0"):
        _make(0)
