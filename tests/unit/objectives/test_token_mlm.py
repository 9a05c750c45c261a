from __future__ import annotations

import numpy as np
import pytest

from pyfsb.objectives.token_mlm import TokenMlm
from tests.helpers.objective_samples import MASK, SPECIAL, documents, make_samples


def test_tokens_are_chosen_one_by_one_whatever_their_word() -> None:
    samples = make_samples([60] * 400, word_rate=0.0, sentence_rate=0.0)  # one word a sample
    found = documents(TokenMlm(SPECIAL, mask_ratio=0.15).build(samples, seed=1))
    counts = [len(document["targets"]) for document in found]
    assert set(counts) == {9}  # 0.15 of 60 exactly
    runs = [np.diff([place for place, _ in document["targets"]]) for document in found]
    # Of 9 places among 60, two neighbours in the list are side by side in 0.15 of the cases.
    assert (np.concatenate(runs) == 1).mean() == pytest.approx(9 / 60, abs=0.02)


def test_eighty_ten_ten() -> None:
    inputs = TokenMlm(SPECIAL, mask_ratio=0.3).build(make_samples([100] * 500), seed=2)
    assert inputs.target_ids_P.size == pytest.approx(0.3 * 50_000, rel=0.01)
    shown = inputs.input_ids_N[inputs.target_positions_P]
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.01)
