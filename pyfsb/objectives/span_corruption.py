# SPDX-License-Identifier: Apache-2.0
"""T5's span corruption: the encoder reads sentinels in place of spans, the decoder writes these.

Shapes: B samples, N tokens end to end, K spans end to end, M decoder tokens, P predicted positions.

    text      a b c d e f g
    encoder   a <0> d e <1> </s>
    decoder   <0> b c <1> f g </s>

Samples of one length give encoder and decoder lengths of one size: 568 tokens give 512 and 114,
1137 give 1024 and 229, ends included (`corrupted_lengths`). So a corpus that was cut into samples
of exactly `raw_length` tokens needs no padding. Never reads a file.

Source: Raffel et al. 2020, sections 3.1.4 and 3.3.4: 15 % of the tokens in spans of 3 on average,
hidden and shown segments are random compositions, the text begins with a shown one and ends with a
hidden one. A sample of one token is hidden whole, which is our choice.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.compositions import compose
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.framing import count_kept, frame, shift_right
from pyfsb.objectives.protocol import Inputs, Ints, Samples
from pyfsb.objectives.special import SpecialIds

NOISE_RATIO: Final = 0.15
MEAN_SPAN_TOKENS: Final = 3.0
"""Of T5."""


class SpanCorruption:
    """Puts sentinels in place of spans and asks for these."""

    name: ClassVar[str] = "span_corruption"
    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        special: SpecialIds,
        *,
        decoder_start: int,
        noise_ratio: float,
        mean_span_tokens: float,
    ) -> None:
        """Keep ids and rates.

        Args:
            special: Of the vocabulary.
            decoder_start: What the decoder begins with; padding in T5.
            noise_ratio: Share of tokens in spans, in (0, 1).
            mean_span_tokens: Mean tokens of a span, 1 or more.

        Raises:
            ConfigError: The vocabulary lacks an end or sentinels.
        """
        self._eos = special.need("eos", self.name)
        self._start = decoder_start
        self._sentinels = special.sentinels
        if not self._sentinels.size:
            raise ConfigError(
                "objective.name = span_corruption needs sentinels <extra_id_0> …; the vocabulary "
                "has none: set data.vocabulary.num_sentinels (T5 has 100)"
            )
        self._ratio, self._mean = noise_ratio, mean_span_tokens

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the corrupted batch of these samples.

        Raises:
            ConfigError: A sample has more spans than the vocabulary sentinels.
        """
        noise_B, spans_B = count_noise(samples.lengths_B, ratio=self._ratio, mean=self._mean)
        self._check_spans(samples.lengths_B, spans_B)
        purposes = (Purpose.HIDDEN_CUTS, Purpose.SHOWN_CUTS)
        draws = Draws(samples, seed=seed, purposes=purposes)
        hidden_K = compose(draws, Purpose.HIDDEN_CUTS, noise_B, spans_B)
        shown_B = samples.lengths_B - noise_B
        shown_K = compose(draws, Purpose.SHOWN_CUTS, np.maximum(shown_B, 1), spans_B)
        rows_K = np.repeat(np.arange(spans_B.size), spans_B)
        shown_K[shown_B[rows_K] == 0] = 0
        starts_K = np.cumsum(hidden_K + shown_K) - hidden_K
        is_hidden_N = np.repeat(
            np.tile([False, True], rows_K.size), np.stack([shown_K, hidden_K], axis=1).reshape(-1)
        )
        places_K = np.arange(rows_K.size) - (np.cumsum(spans_B) - spans_B)[rows_K]
        return self._assemble(
            samples, is_hidden_N, starts_K, hidden_K, self._sentinels[places_K], noise_B + spans_B
        )

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens: encoder, decoder."""
        return corrupted_lengths(num_tokens, noise_ratio=self._ratio, mean_span_tokens=self._mean)

    def _assemble(
        self,
        samples: Samples,
        is_hidden_N: np.ndarray,
        starts_K: Ints,
        hidden_K: Ints,
        sentinels_K: Ints,
        written_B: Ints,
    ) -> Inputs:
        """Put encoder and decoder side together."""
        shown_ids_N = samples.ids_N.copy()
        shown_ids_N[starts_K] = sentinels_K
        is_kept_N = ~is_hidden_N
        is_kept_N[starts_K] = True
        kept_B = count_kept(is_kept_N, samples.lengths_B)
        ids, lengths_B = frame(shown_ids_N[is_kept_N], kept_B, before=None, after=self._eos)
        spans, span_lengths_K = frame(samples.ids_N[is_hidden_N], hidden_K, before=0, after=None)
        spans[np.cumsum(span_lengths_K) - span_lengths_K] = sentinels_K
        targets, decoder_B = frame(spans, written_B, before=None, after=self._eos)
        return Inputs(
            input_ids_N=ids,
            lengths_B=lengths_B,
            decoder_ids_M=shift_right(targets, decoder_B, start=self._start),
            decoder_lengths_B=decoder_B,
            target_positions_P=np.arange(targets.size),
            target_ids_P=targets,
        )

    def _check_spans(self, lengths_B: Ints, spans_B: Ints) -> None:
        if spans_B.size and spans_B.max() > self._sentinels.size:
            longest = int(spans_B.argmax())
            raise ConfigError(
                f"a sample of {lengths_B[longest]} tokens has {spans_B[longest]} spans, the "
                f"vocabulary {self._sentinels.size} sentinels: lower data.max_tokens or raise "
                "objective.span_corruption.mean_span_tokens"
            )


def count_noise(lengths_B: Ints, *, ratio: float, mean: float) -> tuple[Ints, Ints]:
    """Return how many tokens of each sample are hidden, and in how many spans, [B] each."""
    noise_B = np.round(lengths_B * ratio).astype(np.int64)
    noise_B = np.maximum(np.minimum(noise_B, lengths_B - 1), 1)
    spans_B = np.round(noise_B / mean).astype(np.int64)
    most_B = np.maximum(np.minimum(noise_B, lengths_B - noise_B), 1)
    return noise_B, np.clip(spans_B, 1, most_B)


def corrupted_lengths(
    num_tokens: int,
    *,
    noise_ratio: float = NOISE_RATIO,
    mean_span_tokens: float = MEAN_SPAN_TOKENS,
) -> tuple[int, int]:
    """Return the encoder and decoder tokens that a sample of so many tokens gives, ends included.

    Args:
        num_tokens: Tokens of the sample, 1 or more.
        noise_ratio: Share of tokens in spans.
        mean_span_tokens: Mean tokens of a span.
    """
    noise, spans = count_noise(np.array([num_tokens]), ratio=noise_ratio, mean=mean_span_tokens)
    num_noise, num_spans = int(noise[0]), int(spans[0])
    return num_tokens - num_noise + num_spans + 1, num_noise + num_spans + 1


def raw_length(
    encoder_tokens: int,
    *,
    noise_ratio: float = NOISE_RATIO,
    mean_span_tokens: float = MEAN_SPAN_TOKENS,
) -> int:
    """Return the longest sample whose encoder side has at most so many tokens.

    Args:
        encoder_tokens: Tokens that the encoder takes, the end included; 2 or more.
        noise_ratio: Share of tokens in spans.
        mean_span_tokens: Mean tokens of a span.

    Raises:
        ConfigError: No sample is short enough.
    """
    rates = {"noise_ratio": noise_ratio, "mean_span_tokens": mean_span_tokens}
    if corrupted_lengths(1, **rates)[0] > encoder_tokens:
        raise ConfigError(f"{encoder_tokens} tokens hold no corrupted sample; expected 2 or more")
    fits, too_long = 1, 2
    while corrupted_lengths(too_long, **rates)[0] <= encoder_tokens:
        fits, too_long = too_long, 2 * too_long
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if corrupted_lengths(middle, **rates)[0] <= encoder_tokens:
            fits = middle
        else:
            too_long = middle
    return fits
