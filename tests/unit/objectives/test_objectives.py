from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import ConfigError
from pyfsb.objectives import CausalLm, SpecialIds, WholeWord
from pyfsb.objectives.protocol import Samples
from pyfsb.objectives.whole_word import choose_words

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[unused1]",
    *"甲乙丙丁戊己庚辛壬癸",
    "[",
    "]",
]
SPECIAL = SpecialIds.of(PIECES)
ORDINARY = range(6, len(PIECES))


def make_samples(
    rows: list[list[tuple[int, bool]]], ids: list[int] | None = None, *, passes: int = 0
) -> Samples:
    flat = [token for row in rows for token in row]
    return Samples(
        ids_N=np.array([token for token, _ in flat], dtype=np.int64),
        words_N=np.array([starts for _, starts in flat], dtype=np.bool_),
        lengths_B=np.array([len(row) for row in rows], dtype=np.int64),
        sample_ids_B=np.array(ids or range(len(rows)), dtype=np.int64),
        passes_B=np.full(len(rows), passes, dtype=np.int64),
    )


ROWS = st.lists(
    st.lists(
        st.tuples(st.integers(ORDINARY.start, ORDINARY.stop - 1), st.booleans()),
        min_size=1, max_size=40,
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def random_rows(num_rows: int, length: int, seed: int = 0) -> list[list[tuple[int, bool]]]:
    rng = np.random.default_rng(seed)
    return [
        [(int(rng.integers(6, len(PIECES))), bool(rng.random() < 0.6)) for _ in range(length)]
        for _ in range(num_rows)
    ]


def test_special_and_unused_pieces_are_never_drawn() -> None:
    assert SPECIAL.ordinary.tolist() == list(ORDINARY)
    assert (SPECIAL.pad, SPECIAL.cls, SPECIAL.sep, SPECIAL.mask) == (0, 2, 3, 4)


@given(ROWS)
def test_words_are_hidden_whole(rows: list[list[tuple[int, bool]]]) -> None:
    samples = make_samples(rows)
    chosen = choose_words(samples, ratio=0.3, seed=1)
    position = 0
    for row in rows:
        for place in range(1, len(row)):
            if not row[place][1]:
                assert chosen[position + place] == chosen[position + place - 1]
        position += len(row)


@given(ROWS, st.integers(0, 3))
def test_targets_are_the_original_tokens(rows: list[list[tuple[int, bool]]], passes: int) -> None:
    samples = make_samples(rows, passes=passes)
    inputs = WholeWord(SPECIAL, mask_ratio=0.4).build(samples, seed=3)
    clean = CausalLm(SPECIAL).build(samples, seed=3).input_ids_N
    hidden = inputs.input_ids_N
    assert np.array_equal(clean[inputs.target_positions_P], inputs.target_ids_P)
    untouched = np.ones(clean.size, dtype=bool)
    untouched[inputs.target_positions_P] = False
    assert np.array_equal(clean[untouched], hidden[untouched])
    assert not set(inputs.target_ids_P.tolist()) & {0, 2, 3}


def test_a_sample_is_masked_alike_in_any_batch() -> None:
    rows = random_rows(5, 30)
    objective = WholeWord(SPECIAL, mask_ratio=0.15)
    together = objective.build(make_samples(rows), seed=1).input_ids_N.reshape(5, -1)
    for number, row in enumerate(rows):
        alone = objective.build(make_samples([row], [number]), seed=1).input_ids_N
        assert np.array_equal(alone, together[number])


def test_samples_of_several_passes_may_share_a_batch() -> None:
    row = random_rows(1, 60)[0]
    objective = WholeWord(SPECIAL, mask_ratio=0.15)
    both = replace(make_samples([row, row], [7, 7]), passes_B=np.array([1, 4]))
    together = objective.build(both, seed=1).input_ids_N.reshape(2, -1)
    for number, passes in enumerate((1, 4)):
        alone = objective.build(make_samples([row], [7], passes=passes), seed=1).input_ids_N
        assert np.array_equal(alone, together[number])
    assert not np.array_equal(together[0], together[1])


def test_seed_and_pass_change_the_words() -> None:
    rows = random_rows(4, 60)
    masks = {
        choose_words(make_samples(rows, passes=passes), ratio=0.15, seed=seed).tobytes()
        for seed in (1, 2) for passes in (0, 1)
    }  # fmt: skip
    assert len(masks) == 4


@pytest.mark.parametrize("ratio", [0.15, 0.3])
def test_the_share_of_predicted_tokens_is_the_ratio(ratio: float) -> None:
    samples = make_samples(random_rows(2000, 50))
    chosen = choose_words(samples, ratio=ratio, seed=1)
    assert chosen.mean() == pytest.approx(ratio, abs=0.004)


def test_every_word_has_the_same_chance() -> None:
    row = [(7, True), (8, True), (9, False), (10, True), (11, False), (12, False)] * 5
    samples = make_samples([row] * 6000)
    chosen = choose_words(samples, ratio=0.15, seed=1).reshape(6000, -1)
    rates = chosen.mean(axis=0)
    assert rates.max() - rates.min() < 0.05


def test_eighty_ten_ten() -> None:
    samples = make_samples(random_rows(3000, 40))
    inputs = WholeWord(SPECIAL, mask_ratio=0.15).build(samples, seed=1)
    shown = inputs.input_ids_N[inputs.target_positions_P]
    kept = (shown == inputs.target_ids_P).mean()
    assert (shown == SPECIAL.mask).mean() == pytest.approx(0.8, abs=0.01)
    # A random token is the original one in one of twelve cases.
    assert kept == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=0.01)
    assert set(shown.tolist()) <= {SPECIAL.mask, *ORDINARY}


def test_samples_are_framed_and_stand_end_to_end() -> None:
    inputs = CausalLm(SPECIAL).build(make_samples([[(7, True)], [(8, True), (9, True)]]), seed=0)
    assert inputs.input_ids_N.tolist() == [2, 7, 3, 2, 8, 9, 3]
    assert inputs.lengths_B.tolist() == [3, 4]
    assert inputs.num_tokens == 7


def test_causal_targets_are_the_next_tokens() -> None:
    inputs = CausalLm(SPECIAL).build(make_samples([[(7, True)], [(8, True), (9, True)]]), seed=0)
    assert inputs.target_positions_P.tolist() == [0, 1, 3, 4, 5]
    assert inputs.target_ids_P.tolist() == [7, 3, 8, 9, 3]


@settings(max_examples=20)
@given(st.sampled_from([0.0, 1.0, -0.1, 1.5]))
def test_a_ratio_outside_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="objective.mask_ratio"):
        WholeWord(SPECIAL, mask_ratio=ratio)
