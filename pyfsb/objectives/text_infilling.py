# SPDX-License-Identifier: Apache-2.0
"""BART's text infilling: sentences shuffled, spans behind one mask each, the decoder writes all.

Shapes: B samples, N tokens end to end, W words, K spans, M decoder tokens, P predicted positions.

    text      [CLS] a b c d e f [SEP]
    encoder   [CLS] d e f a [MASK] c [SEP]
    decoder   start [CLS] a b c d e f       writes [CLS] a b c d e f [SEP]

Mode words: whole words until the share of tokens is chosen, 80 % of the tokens hidden, 10 %
replaced, 10 % kept, masks side by side made one. Of a share of 0.30, about 24 % of the tokens are
hidden and 3 % replaced. Mode poisson: spans of whole words with Poisson lengths, each one mask; a
span of no words puts a mask in; the share is of words, and all of them are hidden. Spans do not
touch. Never reads a file.

Source: Lewis et al. 2019, sections 2.2 and 5.3; mode words after the published Randeng-BART code.
How spans of poisson are placed (among the words that stay, every placing equally likely) is our
choice.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final, Literal

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.compositions import choose_among
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.framing import count_kept, frame, shift_right
from pyfsb.objectives.masked_lm import COVER_PURPOSES, cover
from pyfsb.objectives.protocol import Bits, Inputs, Ints, Samples
from pyfsb.objectives.sentences import find_sentences, shuffle_sentences
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.units import find_units, spread
from pyfsb.objectives.whole_word import CHOICE_PURPOSES, choose_evenly

_PURPOSES: Final = (
    *COVER_PURPOSES, *CHOICE_PURPOSES, Purpose.SENTENCES, Purpose.LENGTH, Purpose.ROUNDING,
    Purpose.SHOWN_CUTS,
)  # fmt: skip
_MAX_SPAN_WORDS: Final = 64


class TextInfilling:
    """Shuffles sentences, hides spans and asks for the text."""

    name: ClassVar[str] = "text_infilling"
    columns: ClassVar[tuple[str, ...]] = ("sentences",)

    def __init__(
        self,
        special: SpecialIds,
        *,
        decoder_start: int,
        mask_ratio: float,
        spans: Literal["words", "poisson"],
        mean_span_words: float,
        shuffles_sentences: bool,
    ) -> None:
        """Keep ids and rates.

        Args:
            special: Of the vocabulary.
            decoder_start: What the decoder begins with; the end token in BART.
            mask_ratio: Share of tokens (poisson: of words) to choose, in (0, 1).
            spans: See the module.
            mean_span_words: Mean words of a span of poisson.
            shuffles_sentences: Show the sentences in random order.

        Raises:
            ConfigError: A value is out of its range, or the vocabulary lacks a token.
        """
        if not 0.0 < mask_ratio < 1.0:
            raise ConfigError(
                f"objective.text_infilling.mask_ratio = {mask_ratio}; expected more than 0, below 1"
            )
        self._cls = special.need("cls", self.name)
        self._sep = special.need("sep", self.name)
        self._mask = special.need("mask", self.name)
        self._ordinary = special.ordinary
        self._start = decoder_start
        self._ratio = mask_ratio
        self._is_poisson = spans == "poisson"
        self._length_ends = _poisson_ends(mean_span_words)
        self._shuffles = shuffles_sentences

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples.

        Raises:
            DataError: The samples have no sentence bits.
        """
        draws = Draws(samples, seed=seed, purposes=_PURPOSES)
        shown = samples
        if self._shuffles:
            shown = shuffle_sentences(samples, find_sentences(samples, self.name), draws)
        hide = self._hide_spans if self._is_poisson else self._hide_words
        shown_ids, shown_B = hide(shown, draws)
        ids_N, lengths_B = frame(shown_ids, shown_B, before=self._cls, after=self._sep)
        targets, decoder_B = frame(
            samples.ids_N, samples.lengths_B, before=self._cls, after=self._sep
        )
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            decoder_ids_M=shift_right(targets, decoder_B, start=self._start),
            decoder_lengths_B=decoder_B,
            target_positions_P=np.arange(targets.size),
            target_ids_P=targets,
        )

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens: encoder, decoder."""
        return num_tokens + 2, num_tokens + 2

    def _hide_words(self, samples: Samples, draws: Draws) -> tuple[Ints, Ints]:
        """Return ids with masks in place of words, and the tokens of each sample."""
        words = find_units(samples.words_N, samples.lengths_B)
        chosen = choose_evenly(words, samples, draws, ratio=self._ratio)
        shown_P = cover(samples, chosen, draws, mask=self._mask, ordinary=self._ordinary)
        ids_N = samples.ids_N.copy()
        ids_N[chosen.tokens_P] = shown_P
        is_hidden_N = np.zeros(ids_N.size, dtype=np.bool_)
        is_hidden_N[chosen.tokens_P] = shown_P == self._mask
        follows_N = np.zeros(ids_N.size, dtype=np.bool_)  # a mask on a mask of its sample
        follows_N[1:] = is_hidden_N[1:] & is_hidden_N[:-1]
        starts_B = np.cumsum(samples.lengths_B) - samples.lengths_B
        follows_N[starts_B[samples.lengths_B > 0]] = False
        return ids_N[~follows_N], count_kept(~follows_N, samples.lengths_B)

    def _hide_spans(self, samples: Samples, draws: Draws) -> tuple[Ints, Ints]:
        """Return ids with masks in place of spans, and the tokens of each sample."""
        words = find_units(samples.words_N, samples.lengths_B)
        lengths_K, spans_B = self._draw_lengths(words.counts_B, draws)
        rows_K = np.repeat(np.arange(spans_B.size), spans_B)
        hidden_B = np.bincount(rows_K, weights=lengths_K, minlength=spans_B.size).astype(np.int64)
        slots_B = words.counts_B - hidden_B + 1
        slots_K = np.flatnonzero(choose_among(draws, Purpose.SHOWN_CUTS, slots_B, spans_B))
        slots_K -= (np.cumsum(slots_B) - slots_B)[rows_K]  # words that stay before the span
        ends_K = np.cumsum(lengths_K)
        before_B = (np.cumsum(hidden_B) - hidden_B)[rows_K]
        starts_K = words.firsts_B[rows_K] + slots_K + ends_K - lengths_K - before_B
        is_kept_N = np.ones(samples.ids_N.size, dtype=np.bool_)
        is_kept_N[words.tokens_of(spread(starts_K, lengths_K))] = False
        kept_before = np.concatenate(([0], np.cumsum(is_kept_N)))
        places_K = kept_before[words.bounds[starts_K]]
        ids = np.insert(samples.ids_N[is_kept_N], places_K, self._mask)
        return ids, count_kept(is_kept_N, samples.lengths_B) + spans_B

    def _draw_lengths(self, words_B: Ints, draws: Draws) -> tuple[Ints, Ints]:
        """Return the words of every span, [K], and the spans of each sample, [B].

        Every sample draws as many lengths as it has words and uses them until its share is full;
        the last one is cut. Spans without a place of their own are left out.
        """
        budget_B = np.floor(self._ratio * words_B + draws.of_rows(Purpose.ROUNDING))
        numbers_W = draws.of_all(Purpose.LENGTH, words_B)
        lengths_W = np.searchsorted(self._length_ends, numbers_W, side="right")
        rows_W = np.repeat(np.arange(words_B.size), words_B)
        firsts_B = np.cumsum(words_B) - words_B
        ends_W = np.cumsum(lengths_W)
        ends_W -= np.concatenate(([0], ends_W))[firsts_B][rows_W]
        room_W = budget_B.astype(np.int64)[rows_W] - (ends_W - lengths_W)
        places_W = np.arange(rows_W.size) - firsts_B[rows_W]
        slots_B = words_B - budget_B.astype(np.int64) + 1
        is_used_W = (room_W > 0) & (places_W < slots_B[rows_W])
        lengths_K, rows_K = np.minimum(lengths_W, room_W)[is_used_W], rows_W[is_used_W]
        is_placed_K = _drop_surplus(lengths_K, rows_K, words_B.size)
        spans_B = np.bincount(rows_K[is_placed_K], minlength=words_B.size)
        return lengths_K[is_placed_K], spans_B


def _drop_surplus(lengths_K: Ints, rows_K: Ints, num_samples: int) -> Bits:
    """Say which spans stay: no sample may have more spans than hidden words, and so grow.

    Spans of no words go first; only tiny samples ever have too many of them.
    """
    is_empty_K = lengths_K == 0
    hidden_B = np.bincount(rows_K, weights=lengths_K, minlength=num_samples)
    allowed_B = hidden_B - np.bincount(rows_K[~is_empty_K], minlength=num_samples)
    empty_before = np.concatenate(([0], np.cumsum(is_empty_K)))
    firsts_B = np.searchsorted(rows_K, np.arange(num_samples))
    ranks_K = empty_before[:-1] - empty_before[firsts_B][rows_K]
    stays_K: Bits = ~is_empty_K | (ranks_K < allowed_B[rows_K])
    return stays_K


def _poisson_ends(mean: float) -> np.ndarray:
    """Return the running sums of the chances of 0, 1, 2 … words."""
    if not 0.0 < mean <= _MAX_SPAN_WORDS / 2:
        raise ConfigError(
            f"objective.text_infilling.mean_span_words = {mean}; expected more than 0, at most "
            f"{_MAX_SPAN_WORDS // 2}"
        )
    chances = [
        math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(_MAX_SPAN_WORDS)
    ]
    return np.cumsum(chances)
