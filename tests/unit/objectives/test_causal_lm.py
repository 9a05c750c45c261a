from __future__ import annotations

from pyfsb.objectives import CausalLm, SpecialIds
from tests.helpers.objective_samples import SPECIAL, make_samples, rows_of


def test_every_next_token_is_asked_for() -> None:
    samples = make_samples([1, 2])
    (a,), (b, c) = rows_of(samples)
    inputs = CausalLm(SPECIAL).build(samples, seed=0)
    assert inputs.input_ids_N.tolist() == [2, a, 3, 2, b, c, 3]
    assert inputs.lengths_B.tolist() == [3, 4]
    assert inputs.target_positions_P.tolist() == [0, 1, 3, 4, 5]
    assert inputs.target_ids_P.tolist() == [a, 3, b, c, 3]
    assert inputs.num_targets == 5


def test_one_token_may_begin_and_end() -> None:
    special = SpecialIds.of([*map(str, range(40)), "<|endoftext|>"])
    samples = make_samples([2])
    inputs = CausalLm(special).build(samples, seed=0)
    assert inputs.input_ids_N.tolist() == [40, *samples.ids_N.tolist(), 40]
    assert inputs.target_ids_P.tolist() == [*samples.ids_N.tolist(), 40]


def test_begin_and_end_of_its_own_come_before_cls_and_sep() -> None:
    pieces = ["[PAD]", "[CLS]", "[SEP]", "[BOS]", "[EOS]", *map(str, range(40))]
    ids = CausalLm(SpecialIds.of(pieces)).build(make_samples([1]), seed=0).input_ids_N
    assert (ids[0], ids[-1]) == (3, 4)
