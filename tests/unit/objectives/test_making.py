"""Every objective on samples: what all of them must keep to."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.config import ObjectiveName, ObjectiveSpec
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.objectives import Objective, SpecialIds, make_objective
from tests.helpers.objective_samples import (
    CLS,
    FIRST,
    MASK,
    NUM_ORDINARY,
    PAD,
    PIECES,
    SEP,
    SPECIAL,
    documents,
    make_samples,
    rows_of,
)  # fmt: skip

SPECS = {
    "token_mlm": {}, "whole_word": {}, "ngram_mlm": {}, "knowledge_masking": {},
    "sentence_order": {}, "span_corruption": {}, "text_infilling": {},
    "poisson": {"name": "text_infilling", "text_infilling": {"spans": "poisson"}},
    "gap_sentences": {}, "denoising": {}, "causal_lm": {}, "prefix_lm": {},
}  # fmt: skip
ROW_OBJECTIVES = {
    "sft", "rewriting", "multiple_choice", "extraction", "contrastive", "image_labels",
}  # fmt: skip


def make(case: str) -> Objective:
    spec = ObjectiveSpec(**{"name": case, **SPECS[case]})
    encode = lambda text: [PIECES.index(letter) for letter in text if letter in PIECES]  # noqa: E731
    return make_objective(spec, SPECIAL, decoder_start=PAD, encode=encode)


def make_denoising() -> Objective:
    spec = ObjectiveSpec(name="denoising", denoising={"template": "甲{text}乙丙", "end": "丁"})
    return make_objective(spec, SPECIAL, encode=lambda text: [PIECES.index(x) for x in text])


@pytest.fixture(params=sorted(SPECS), scope="module")
def objective(request: pytest.FixtureRequest) -> Objective:
    return make_denoising() if request.param == "denoising" else make(request.param)


def test_every_name_is_made_or_says_where() -> None:
    for name in ObjectiveName:
        if name.value in ROW_OBJECTIVES:
            with pytest.raises(ConfigError, match=f"{name.value} learns from labelled rows"):
                make_objective(ObjectiveSpec(name=name), SPECIAL)
        else:
            assert name.value in SPECS
    with pytest.raises(UnknownNameError, match="unknown objective 'None'"):
        make_objective(ObjectiveSpec(), SPECIAL)


def test_names_and_columns_are_those_of_the_spec(objective: Objective) -> None:
    assert ObjectiveName(objective.name)
    assert set(objective.columns) <= {"sentences", "gaps", "knowledge"}


BATCHES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 1 << 40)), min_size=1, max_size=6,
    unique_by=lambda pair: pair[1],
).filter(lambda pairs: any(length for length, _ in pairs))  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(BATCHES, st.integers(0, 3), st.integers(0, 1 << 32))
def test_a_sample_is_the_same_in_any_batch(
    objective: Objective, pairs: list[tuple[int, int]], passes: int, seed: int
) -> None:
    lengths, ids = [length or 1 for length, _ in pairs], [own for _, own in pairs]
    samples = make_samples(lengths, sample_ids=ids, passes=passes)
    together = documents(objective.build(samples, seed=seed))
    order = np.random.default_rng(seed).permutation(len(ids)).tolist()
    shuffled = make_samples(
        [lengths[i] for i in order], sample_ids=[ids[i] for i in order], passes=passes
    )
    for place, document in zip(order, documents(objective.build(shuffled, seed=seed)), strict=True):
        assert document == together[place]
    for length, own, document in zip(lengths, ids, together, strict=True):
        alone = make_samples([length], sample_ids=[own], passes=passes)
        assert documents(objective.build(alone, seed=seed)) == [document]


def test_the_same_call_gives_the_same_batch_and_changes_nothing(objective: Objective) -> None:
    samples, copy = (make_samples([30, 1, 17, 64]) for _ in range(2))
    first, second = (objective.build(samples, seed=9).arguments for _ in range(2))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    for field in fields(samples):
        assert np.array_equal(getattr(samples, field.name), getattr(copy, field.name))


def test_arrays_are_what_the_loss_takes(objective: Objective) -> None:
    inputs = objective.build(make_samples([25, 2, 60]), seed=0)
    for name, values in inputs.arguments.items():
        assert values.dtype == np.int64, name
        assert values.flags.c_contiguous, name
    assert inputs.lengths_B.sum() == inputs.input_ids_N.size == inputs.num_tokens
    positions = inputs.target_positions_P
    assert np.all(np.diff(positions) > 0)
    side = inputs.input_ids_N if inputs.decoder_ids_M is None else inputs.decoder_ids_M
    assert positions.min() >= 0 and positions.max() < side.size
    if inputs.decoder_ids_M is not None:
        assert inputs.decoder_lengths_B is not None
        assert inputs.decoder_lengths_B.sum() == inputs.decoder_ids_M.size
        assert inputs.decoder_lengths_B.min() > 0
    for ids in (inputs.input_ids_N, inputs.target_ids_P, side):
        assert ids.min() >= 0 and ids.max() < len(PIECES)


def test_pass_and_seed_change_what_is_asked(objective: Objective) -> None:
    if objective.name == "causal_lm":
        return
    inputs = {
        str(documents(objective.build(make_samples([200] * 3, passes=passes), seed=seed)))
        for passes in (0, 1) for seed in (0, 1)
    }  # fmt: skip
    assert len(inputs) == 4


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [2], [3, 1], [0, 5], [5, 0], [4, 0, 0, 6]])
def test_tiny_and_empty_samples(objective: Objective, lengths: list[int]) -> None:
    if 0 in lengths and objective.name == "span_corruption":
        return  # nothing to hide: the data stage makes no empty samples
    samples = make_samples(lengths)
    for passes in range(20):
        found = documents(objective.build(make_samples(lengths, passes=passes), seed=1))
        assert len(found) == len(lengths)
        assert all(document["ids"] for document in found)
        assert all(row or not document["decoder"] or len(document["decoder"]) <= 3
                   for row, document in zip(rows_of(samples), found, strict=True))  # fmt: skip


def test_masked_targets_are_ordinary_tokens() -> None:
    for case in ("token_mlm", "whole_word", "ngram_mlm", "knowledge_masking", "sentence_order"):
        inputs = make(case).build(make_samples([50] * 40), seed=3)
        assert not set(inputs.target_ids_P.tolist()) & {PAD, CLS, SEP, MASK}, case
        shown = inputs.input_ids_N[inputs.target_positions_P]
        assert set(shown.tolist()) <= {MASK, *range(FIRST, FIRST + NUM_ORDINARY)}, case


def test_no_document_is_longer_than_said(objective: Objective) -> None:
    for length in (1, 2, 3, 7, 40, 200):
        most, decoder_most = objective.sizes(length)
        inputs = objective.build(make_samples([length] * 30), seed=0)
        assert inputs.lengths_B.max() <= most
        if inputs.decoder_lengths_B is None:
            assert decoder_most == 0
        else:
            assert inputs.decoder_lengths_B.max() <= decoder_most


@pytest.mark.parametrize("case", ["span_corruption", "text_infilling", "gap_sentences"])
def test_a_decoder_is_needed(case: str) -> None:
    with pytest.raises(ConfigError, match=f"{case}: the model has no decoder"):
        make_objective(ObjectiveSpec(name=case), SPECIAL)


@pytest.mark.parametrize("case", sorted(set(SPECS) - {"poisson", "denoising"}))
def test_a_vocabulary_without_special_tokens_is_refused(case: str) -> None:
    bare = SpecialIds.of(["甲", "乙", "<extra_id_0>"])
    with pytest.raises(ConfigError, match=f"{case} needs a token"):
        make_objective(ObjectiveSpec(name=case), bare, decoder_start=0)


def test_denoising_needs_the_tokenizer() -> None:
    with pytest.raises(ConfigError, match="denoising needs the tokenizer"):
        make_objective(ObjectiveSpec(name="denoising"), SPECIAL)


@pytest.mark.parametrize("case", ["whole_word", "token_mlm", "prefix_lm", "text_infilling"])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_ratio_outside_is_refused(case: str, ratio: float) -> None:
    spec = ObjectiveSpec(name=case, mask_ratio=ratio)
    if case == "text_infilling":
        options = spec.text_infilling.model_copy(update={"mask_ratio": ratio})
        spec = spec.model_copy(update={"text_infilling": options})
    with pytest.raises(ConfigError, match="mask_ratio"):
        make_objective(spec, SPECIAL, decoder_start=0)
