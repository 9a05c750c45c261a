from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.errors import ConfigError
from pyfsb.objectives import SpecialIds
from pyfsb.objectives.span_corruption import (
    SpanCorruption,
    corrupted_lengths,
    count_noise,
    raw_length,
)
from tests.helpers.objective_samples import (
    PAD,
    PIECES,
    SEP,
    SPECIAL,
    documents,
    make_samples,
    rows_of,
)

SENTINELS = sorted((PIECES.index(piece) for piece in PIECES if "extra_id" in piece), reverse=True)


def make(noise: float = 0.15, mean: float = 3.0, special: SpecialIds = SPECIAL) -> SpanCorruption:
    return SpanCorruption(special, decoder_start=PAD, noise_ratio=noise, mean_span_tokens=mean)


def spans_of(written: list[int]) -> list[list[int]]:
    """What a decoder writes, span by span, each with its sentinel first; without the end."""
    spans: list[list[int]] = []
    for token in written[:-1]:
        if token in SENTINELS:
            spans.append([])
        spans[-1].append(token)
    return spans


def restore(document: dict) -> list[int]:
    """The text, from both sides of a document."""
    hidden = {span[0]: span[1:] for span in spans_of([token for _, token in document["targets"]])}
    return [token for own in document["ids"][:-1] for token in hidden.get(own, [own])]


@pytest.mark.parametrize(("raw", "encoder", "decoder"), [(568, 512, 114), (1137, 1024, 229)])
def test_published_lengths(raw: int, encoder: int, decoder: int) -> None:
    assert corrupted_lengths(raw) == make().sizes(raw) == (encoder, decoder)
    assert raw_length(encoder) == raw
    inputs = make().build(make_samples([raw] * 6), seed=2)
    assert set(inputs.lengths_B.tolist()) == {encoder}
    assert set(inputs.decoder_lengths_B.tolist()) == {decoder}


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=5)
RATES = {"noise": st.floats(0.01, 0.99), "mean": st.floats(1.0, 12.0)}


@settings(max_examples=80)
@given(lengths=LENGTHS, seed=st.integers(0, 1 << 32), passes=st.integers(0, 3), **RATES)
def test_both_sides_together_are_the_text(
    lengths: list[int], noise: float, mean: float, seed: int, passes: int
) -> None:
    samples = make_samples(lengths, passes=passes)
    found = documents(make(noise, mean).build(samples, seed=seed))
    for row, document in zip(rows_of(samples), found, strict=True):
        assert restore(document) == row
        written = [token for _, token in document["targets"]]
        assert [place for place, _ in document["targets"]] == list(range(len(written)))
        assert document["decoder"] == [PAD, *written[:-1]]
        assert document["ids"][-1] == written[-1] == SEP
        spans = spans_of(written)
        assert all(len(span) > 1 for span in spans)
        taken = [span[0] for span in spans]
        assert taken == SENTINELS[: len(taken)]
        assert [token for token in document["ids"] if token in SENTINELS] == taken
        # Spans do not touch: between two sentinels the encoder reads a token at least.
        assert all(
            not {first, second} <= set(SENTINELS) for first, second in pairwise(document["ids"])
        )
        # The ends of a text: shown first, hidden last.
        assert document["ids"][-2] == taken[-1]
        assert len(row) == 1 or document["ids"][0] == row[0]


@settings(max_examples=200)
@given(first=st.integers(1, 3000), more=st.integers(0, 50), **RATES)
def test_sizes_are_exact_and_hold_for_shorter_samples(
    first: int, more: int, noise: float, mean: float
) -> None:
    objective = make(noise, mean)
    small, large = objective.sizes(first), objective.sizes(first + more)
    assert small[0] <= large[0] and small[1] <= large[1]
    noise_B, spans_B = count_noise(np.array([first]), ratio=noise, mean=mean)
    assert 1 <= spans_B[0] <= noise_B[0] <= max(first - 1, 1)
    assert small == (first - noise_B[0] + spans_B[0] + 1, noise_B[0] + spans_B[0] + 1)


@settings(max_examples=100)
@given(encoder=st.integers(2, 3000), **RATES)
def test_the_raw_length_is_the_longest_that_fits(encoder: int, noise: float, mean: float) -> None:
    rates = {"noise_ratio": noise, "mean_span_tokens": mean}
    raw = raw_length(encoder, **rates)
    assert corrupted_lengths(raw, **rates)[0] <= encoder < corrupted_lengths(raw + 1, **rates)[0]


def test_no_sample_fits_one_token() -> None:
    with pytest.raises(ConfigError, match="1 tokens hold no corrupted sample; expected 2 or more"):
        raw_length(1)


@pytest.mark.parametrize(("noise", "mean"), [(0.15, 3.0), (0.5, 2.0), (0.3, 1.0)])
def test_share_and_mean_span_are_those_of_the_spec(noise: float, mean: float) -> None:
    found = documents(make(noise, mean).build(make_samples([200] * 150), seed=4))
    spans = [
        len(span) - 1 for own in found for span in spans_of([token for _, token in own["targets"]])
    ]
    assert sum(spans) / (200 * 150) == pytest.approx(noise, abs=1e-9)
    assert np.mean(spans) == pytest.approx(mean, rel=0.01)
    assert min(spans) == 1 and (mean == 1.0 or len(set(spans)) > 4)


def test_spans_are_random_compositions() -> None:
    # 20 tokens at 0.3: 6 hidden in 2 spans, 14 shown in 2 parts: 5 x 13 equally likely ways.
    samples = make_samples([20] * 3250)
    inputs = make(0.3, 3.0).build(samples, seed=6)
    shown = np.argmax(inputs.input_ids_N.reshape(3250, -1) == SENTINELS[0], axis=1)
    hidden = np.argmax(inputs.target_ids_P.reshape(3250, -1) == SENTINELS[1], axis=1) - 1
    counts = Counter(zip(shown.tolist(), hidden.tolist(), strict=True))
    assert set(counts) == {(shown, hidden) for shown in range(1, 14) for hidden in range(1, 6)}
    # Chi-square with 64 degrees of freedom: 104.7 is passed once in a thousand.
    assert sum((count - 50) ** 2 / 50 for count in counts.values()) < 104.7


def test_tiny_samples() -> None:
    samples = make_samples([1, 2, 3])
    (one, two, three) = documents(make().build(samples, seed=0))
    row = rows_of(samples)
    first = SENTINELS[0]
    assert (one["ids"], one["targets"]) == ([first, SEP], [(0, first), (1, row[0][0]), (2, SEP)])
    assert (two["ids"], two["decoder"]) == ([row[1][0], first, SEP], [PAD, first, row[1][1]])
    assert (three["ids"], three["decoder"]) == ([*row[2][:2], first, SEP], [PAD, first, row[2][2]])


def test_too_few_sentinels_are_named_with_the_sample() -> None:
    few = SpecialIds.of([*PIECES[:7], *PIECES[7:30], "<extra_id_1>"])
    make(special=few).build(make_samples([40]), seed=0)  # 6 hidden in 2 spans
    with pytest.raises(
        ConfigError, match="a sample of 60 tokens has 3 spans, the vocabulary 2 sentinels"
    ):
        make(special=few).build(make_samples([40, 60, 20]), seed=0)
    with pytest.raises(ConfigError, match=r"needs sentinels <extra_id_0> …; .*num_sentinels"):
        make(special=SpecialIds.of(PIECES[:6]))
