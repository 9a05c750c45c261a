from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pyfsb.errors import ConfigError
from pyfsb.objectives.denoising import Denoising, NoiseRates, PromptIds
from tests.helpers.objective_samples import (
    FIRST,
    NUM_ORDINARY,
    SEP,
    SPECIAL,
    documents,
    make_samples,
    rows_of,
)

PROMPT = PromptIds(before=(501,), between=(502, 503), after=(504,))


def _make(**rates: float) -> Denoising:
    zero = {"insert": 0.0, "delete": 0.0, "replace": 0.0, "swap": 0.0, "reorder": 0.0}
    return Denoising(SPECIAL, prompt=PROMPT, rates=NoiseRates(**{**zero, **rates}))


def _tagged(num_samples: int = 100, length: int = 80):
    """Samples without a token twice, none of them one that a draw may give."""
    samples = make_samples([length] * num_samples)
    return replace(samples, ids_N=np.arange(1000, 1000 + samples.ids_N.size))


def _spoiled(objective: Denoising, samples, *, seed: int = 1) -> list[list[int]]:
    found = []
    for row, document in zip(
        rows_of(samples), documents(objective.build(samples, seed=seed)), strict=True
    ):
        ids = document["ids"]
        middle = ids.index(502)
        assert ids[0] == 501
        assert ids[middle:] == [502, 503, *row, 504, SEP]
        assert [target for _, target in document["targets"]] == [*row, 504, SEP]
        places = [place for place, _ in document["targets"]]
        assert places == list(range(middle + 1, len(ids) - 1))  # from the prompt's last token on
        found.append(ids[1:middle])
    return found


def test_without_noise_the_text_stands_twice() -> None:
    samples = _tagged()
    assert _spoiled(_make(), samples) == rows_of(samples)


def test_deletion() -> None:
    samples = _tagged()
    left = _spoiled(_make(delete=0.2), samples)
    assert all(
        own == sorted(own) and set(own) <= set(row)
        for own, row in zip(left, rows_of(samples), strict=True)
    )
    assert sum(map(len, left)) / samples.ids_N.size == pytest.approx(0.8, abs=0.015)


def test_replacement_and_insertion_draw_ordinary_tokens() -> None:
    samples = _tagged()
    replaced = _spoiled(_make(replace=0.2), samples)
    assert all(len(own) == 80 for own in replaced)
    new = [number for own in replaced for number in own if number < 1000]
    assert len(new) / samples.ids_N.size == pytest.approx(0.2, abs=0.015)
    inserted = _spoiled(_make(insert=0.1), samples)
    more = [number for own in inserted for number in own if number < 1000]
    assert len(more) / samples.ids_N.size == pytest.approx(0.1, abs=0.012)
    assert all(
        [n for n in own if n >= 1000] == row
        for own, row in zip(inserted, rows_of(samples), strict=True)
    )
    for drawn in (new, more):
        counts = Counter(drawn)
        assert set(counts) == set(range(FIRST, FIRST + NUM_ORDINARY))
        assert min(counts.values()) > 0.4 * len(drawn) / NUM_ORDINARY


def test_swaps_are_of_neighbours() -> None:
    samples = _tagged()
    moved = 0
    for own, row in zip(_spoiled(_make(swap=0.2), samples), rows_of(samples), strict=True):
        shifts = np.array(own) - row
        assert set(shifts.tolist()) <= {-1, 0, 1}
        assert sorted(own) == row
        moved += np.count_nonzero(shifts)
    assert moved / samples.ids_N.size == pytest.approx(0.2, abs=0.015)


def test_reordering_shuffles_the_sentences_of_some_samples() -> None:
    samples = make_samples([100] * 400, sentence_rate=0.2)
    samples = replace(samples, ids_N=np.arange(1000, 1000 + samples.ids_N.size))
    found = _spoiled(_make(reorder=0.3), samples)
    assert all(sorted(own) == row for own, row in zip(found, rows_of(samples), strict=True))
    changed = [own != row for own, row in zip(found, rows_of(samples), strict=True)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.06)


def test_all_noise_together_and_a_sample_may_vanish() -> None:
    tiny = make_samples([1] * 200)
    sizes = {len(own) for own in _spoiled(_make(delete=0.5, insert=0.5, swap=0.5), tiny)}
    assert sizes == {0, 1, 2}


def test_a_prompt_without_tokens_is_refused() -> None:
    nothing = PromptIds(before=(), between=(), after=())
    rates = NoiseRates(insert=0.1, delete=0.1, replace=0.1, swap=0.1, reorder=0.1)
    with pytest.raises(ConfigError, match="denoising.template has no tokens"):
        Denoising(SPECIAL, prompt=nothing, rates=rates)
