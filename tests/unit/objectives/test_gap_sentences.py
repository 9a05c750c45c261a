from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import DataError
from pyfsb.objectives.gap_sentences import GapSentences
from pyfsb.objectives.protocol import Samples
from tests.helpers.objective_samples import MASK, PAD, SEP, SPECIAL, documents, make_samples

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def make(ratio: float = 0.9) -> GapSentences:
    return GapSentences(SPECIAL, decoder_start=PAD, hidden_ratio=ratio)


def tag(samples: Samples) -> Samples:
    """Samples in which every token has an id of its own."""
    return replace(samples, ids_N=np.arange(1000, 1000 + samples.ids_N.size))


def sentences_of(samples: Samples) -> list[list[tuple[list[int], bool]]]:
    """The sentences of every sample, each with whether it is a gap sentence."""
    found: list[list[tuple[list[int], bool]]] = []
    for token, starts, is_gap, place in zip(
        samples.ids_N.tolist(),
        samples.sentences_N,
        samples.gaps_N,
        samples.positions_N,
        strict=True,
    ):
        if place == 0:
            found.append([])
        if starts or place == 0:
            found[-1].append(([], bool(is_gap)))
        found[-1][-1][0].append(token)
    return found


@settings(max_examples=60)
@given(LENGTHS, st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(0, 1 << 32))
def test_sides_hold_every_sentence(lengths: list[int], ratio: float, seed: int) -> None:
    samples = tag(make_samples(lengths, sentence_rate=0.2))
    inputs = make(ratio).build(samples, seed=seed)
    for sentences, document in zip(sentences_of(samples), documents(inputs), strict=True):
        gaps = [token for sentence, is_gap in sentences if is_gap for token in sentence]
        expected = [*gaps, SEP] if gaps else []
        assert document["targets"] == list(enumerate(expected))
        assert document["decoder"] == ([PAD, *gaps] if gaps else [PAD])
        shown = list(document["ids"])
        for sentence, is_gap in sentences:
            if is_gap and shown[0] == MASK:
                assert ratio > 0.0
                del shown[0]
            else:
                assert ratio < 1.0 or not is_gap
                assert shown[: len(sentence)] == sentence
                del shown[: len(sentence)]
        assert shown == [SEP]


@settings(max_examples=60)
@given(LENGTHS, st.integers(0, 9), st.floats(0.0, 1.0), st.integers(0, 100))
def test_sizes_are_never_passed(lengths: list[int], rate: int, ratio: float, seed: int) -> None:
    samples = make_samples(lengths, sentence_rate=rate / 9)
    inputs = make(ratio).build(replace(samples, gaps_N=np.ones_like(samples.gaps_N)), seed=seed)
    most = np.array([make(ratio).sizes(length) for length in lengths])
    assert np.all(inputs.lengths_B <= most[:, 0])
    assert np.all(inputs.decoder_lengths_B <= most[:, 1])


def test_nine_of_ten_are_hidden_and_others_in_another_pass() -> None:
    shares = []
    for passes in (0, 1):
        samples = tag(make_samples([60] * 1000, passes=passes, sentence_rate=0.2))
        is_first = samples.sentences_N & samples.gaps_N
        shown = make().build(samples, seed=1).input_ids_N
        is_hidden = ~np.isin(samples.ids_N[is_first], shown)
        assert is_hidden.sum() == (shown == MASK).sum()
        shares.append(is_hidden)
    assert shares[0].size > 3000
    assert [own.mean() for own in shares] == pytest.approx([0.9, 0.9], abs=0.015)
    assert (shares[0] != shares[1]).mean() == pytest.approx(2 * 0.9 * 0.1, abs=0.02)


def test_nothing_is_asked_of_a_single_sentence() -> None:
    samples = make_samples([9, 1, 12], sentence_rate=0.0)
    inputs = make(1.0).build(samples, seed=0)
    assert inputs.num_targets == 0
    assert inputs.decoder_ids_M.tolist() == [PAD] * 3
    assert inputs.lengths_B.tolist() == [10, 2, 13]
    # Beside a sample with gaps, places still point at that sample's own decoder.
    both = make_samples([9, 40], sentence_rate=0.0)
    starts = both.sentences_N.copy()
    starts[9 + 30] = True
    gaps = np.arange(49) >= 9 + 30
    found = documents(make(1.0).build(replace(both, sentences_N=starts, gaps_N=gaps), seed=0))
    assert found[0]["targets"] == []
    last = both.ids_N[-10:].tolist()
    assert [token for _, token in found[1]["targets"]] == [*last, SEP]
    assert found[1]["ids"] == [*both.ids_N[9:39].tolist(), MASK, SEP]


def test_missing_columns_are_named() -> None:
    samples = make_samples([9])
    with pytest.raises(DataError, match=r"data.columns: \[gaps\]"):
        make().build(replace(samples, gaps_N=None), seed=0)
    with pytest.raises(DataError, match="gap_sentences needs to know where sentences begin"):
        make().build(replace(samples, sentences_N=None), seed=0)
