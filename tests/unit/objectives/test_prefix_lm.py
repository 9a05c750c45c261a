from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.objectives.prefix_lm import PrefixLm
from tests.helpers.objective_samples import (
    CLS,
    FIRST,
    MASK,
    NUM_ORDINARY,
    SEP,
    SPECIAL,
    documents,
    make_samples,
    rows_of,
)  # fmt: skip

ORDINARY = range(FIRST, FIRST + NUM_ORDINARY)


def make(mlm: float = 1 / 3, lm: float = 1 / 3, ratio: float = 0.15) -> PrefixLm:
    return PrefixLm(SPECIAL, mask_ratio=ratio, mlm_ratio=mlm, lm_ratio=lm)


def visible(types: list[int]) -> np.ndarray:
    """Who sees whom, [reader, read]: the mask of the model that these types are made for."""
    groups = np.cumsum(types)
    return groups[None, :] <= groups[:, None]


def kind_of(document: dict) -> str:
    types = document["types"]
    tail = sum(types)
    assert types == [0] * (len(types) - tail) + [1] * tail  # a prefix and a tail
    return "masked" if not tail else "written" if tail == len(types) - 1 else "prefix"


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 1 << 32), st.integers(0, 3)
)
def test_no_target_can_be_seen(lengths: list[int], seed: int, passes: int) -> None:
    samples = make_samples(lengths, passes=passes)
    objective = make(ratio=0.3)
    for row, document in zip(
        rows_of(samples), documents(objective.build(samples, seed=seed)), strict=True
    ):
        clean = [CLS, *row, SEP]
        assert len(document["ids"]) == len(clean) == objective.sizes(len(row))[0]
        places = [place for place, _ in document["targets"]]
        if kind_of(document) == "masked":
            assert all(clean[place] == target for place, target in document["targets"])
            assert SEP not in {target for _, target in document["targets"]}
            rest = [place for place in range(len(clean)) if place not in places]
            assert [document["ids"][place] for place in rest] == [clean[place] for place in rest]
            assert {document["ids"][place] for place in places} <= {MASK, *ORDINARY}
            continue
        sees = visible(document["types"])
        assert document["ids"] == clean
        assert not any(sees[place, place + 1] for place in places)
        assert all(clean[place + 1] == target for place, target in document["targets"])
        # Every token of the tail is asked for once, the end too; a reader sees what is before it.
        assert places == [place - 1 for place, own in enumerate(document["types"]) if own]
        assert places[-1] == len(clean) - 2
        assert all(sees[place, : place + 1].all() for place in places)


@pytest.mark.parametrize("lengths", [[1], [2], [1, 2, 1, 3]])
def test_tiny_samples(lengths: list[int]) -> None:
    for mlm, lm, kinds in ((1, 0, {"masked"}), (0, 1, {"written"}), (0, 0, {"prefix", "written"})):
        for passes in range(10):
            inputs = make(mlm, lm, 0.9).build(make_samples(lengths, passes=passes), seed=0)
            for length, document in zip(lengths, documents(inputs), strict=True):
                assert kind_of(document) in kinds
                # One token leaves nothing for a prefix to hold.
                assert (mlm, lm) != (0, 0) or (kind_of(document) == "prefix") == (length > 1)


SHARES = [
    (1 / 3, 1 / 3),
    (0.5, 0.2),
    (0.0, 0.4),
    (0.6, 0.0),
    (1.0, 0.0),
    (0.0, 1.0),
    (0.0, 0.0),
    (0.3, 0.7),
]


@pytest.mark.parametrize(("mlm", "lm"), SHARES)
def test_shares_of_the_forms_are_those_of_the_spec(mlm: float, lm: float) -> None:
    inputs = make(mlm, lm).build(make_samples([12] * 3000), seed=3)
    kinds = {0: "masked", 13: "written"}
    tails = inputs.token_type_ids_N.reshape(3000, 14).sum(axis=1).tolist()
    counts = Counter(kinds.get(tail, "prefix") for tail in tails)
    for kind, share in (("masked", mlm), ("written", lm), ("prefix", 1 - mlm - lm)):
        if share < 1e-9 or share == 1.0:
            assert counts[kind] == 3000 * round(share)
        assert counts[kind] / 3000 == pytest.approx(share, abs=0.03)


def test_a_text_takes_all_forms_in_several_passes() -> None:
    found = {
        kind_of(document)
        for passes in range(30)
        for document in documents(make().build(make_samples([30], passes=passes), seed=0))
    }
    assert found == {"masked", "written", "prefix"}


def test_a_prefix_ends_at_every_token_with_the_same_chance() -> None:
    inputs = make(0, 0).build(make_samples([9] * 4000), seed=1)
    lengths = Counter((10 - inputs.token_type_ids_N.reshape(4000, 11).sum(axis=1)).tolist())
    assert set(lengths) == set(range(1, 9))
    # Chi-square with 7 degrees of freedom: 24.3 is passed once in a thousand.
    assert sum((count - 500) ** 2 / 500 for count in lengths.values()) < 24.3


def test_masked_texts_hide_whole_words_80_10_10() -> None:
    samples = make_samples([40] * 1500, word_rate=0.4)
    words = np.cumsum(samples.words_N | (samples.positions_N == 0))
    inputs = make(1.0, 0.0).build(replace(samples, ids_N=1000 + words), seed=5)
    assert inputs.target_ids_P.size / samples.ids_N.size == pytest.approx(0.15, abs=0.005)
    hidden, present = Counter(inputs.target_ids_P.tolist()), Counter((1000 + words).tolist())
    assert all(present[word] == count for word, count in hidden.items())
    shown = inputs.input_ids_N[inputs.target_positions_P]
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.015)
    assert (shown == inputs.target_ids_P).mean() == pytest.approx(0.1, abs=0.01)
    assert set(shown[(shown != MASK) & (shown != inputs.target_ids_P)].tolist()) <= set(ORDINARY)
