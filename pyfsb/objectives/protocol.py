# SPDX-License-Identifier: Apache-2.0
"""What an objective takes and gives.

Shapes: B samples, N tokens of all samples end to end, P predicted positions.

Training reads samples from shards and hands them to an objective; the model's head is computed at
the predicted positions only. Objectives never read a file and never hold state: randomness is a
key of integers: seed, sample id and the pass over the data that the sample is read in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples of a batch, end to end, without special tokens."""

    ids_N: Ints
    """Token ids."""
    words_N: Bits
    """Word-start bits."""
    lengths_B: Ints
    """Tokens of each sample; their sum is N."""
    sample_ids_B: Ints
    """Numbers of the samples in the shards: with the pass, the key of their randomness."""
    passes_B: Ints
    """The pass over the data of each sample; another pass hides other words."""
    sentences_N: Bits | None = None
    """Sentence-start bits; there if the objective asks for column `sentences`."""
    gaps_N: Bits | None = None
    """True on the tokens of gap sentences (Pegasus); column `gaps`."""
    knowledge_N: NDArray[np.uint8] | None = None
    """How much a token's word means, 0 (nothing) to 255, the same for all tokens of a word;
    column `knowledge`."""

    @property
    def rows_N(self) -> Ints:
        """The row of each token."""
        return np.repeat(np.arange(self.lengths_B.size), self.lengths_B)

    @property
    def positions_N(self) -> Ints:
        """The position of each token in its sample, from 0."""
        starts = np.cumsum(self.lengths_B) - self.lengths_B
        return np.arange(self.ids_N.size) - np.repeat(starts, self.lengths_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A flat batch (documents end to end, no padding) and what to predict where."""

    input_ids_N: Ints
    """Ids of every document, [CLS] first and [SEP] last in each."""
    lengths_B: Ints
    """Tokens of each document, special tokens included; their sum is N."""
    target_positions_P: Ints
    """Where to predict: indices into N, ascending."""
    target_ids_P: Ints
    """What is right there."""
    token_type_ids_N: Ints | None = None
    """Token types, of objectives that have them."""
    position_ids_N: Ints | None = None
    """Positions, where they are not 0, 1, 2 … in each document."""
    decoder_ids_M: Ints | None = None
    """Inputs of the decoder end to end, of encoder-decoders; targets then point into it."""
    decoder_lengths_B: Ints | None = None
    """Decoder tokens of each document; their sum is M."""
    sentence_labels_B: Ints | None = None
    """A label of each document, of sentence-order objectives: 1 is swapped."""
    sentence_weights_B: Ints | None = None
    """How many predicted tokens each of these labels counts as; 0 where a document has no order."""
    ngram_ids_G: Ints | None = None
    """N-grams (ZEN) of all documents end to end, ids of the lexicon."""
    ngram_starts_G: Ints | None = None
    """First token of each: an index into N."""
    ngram_lengths_G: Ints | None = None
    """Tokens of each."""
    ngram_counts_B: Ints | None = None
    """N-grams of each document; their sum is G."""
    ngram_frequencies_G: Ints | None = None
    """How often each is in the lexicon's corpus; ZEN2 weighs n-grams by it."""

    @property
    def num_tokens(self) -> int:
        """Tokens, special tokens included."""
        return int(self.input_ids_N.size)

    @property
    def num_targets(self) -> int:
        """Predicted positions, and what the sentence labels count as."""
        weights_B = self.sentence_weights_B
        return int(self.target_ids_P.size) + (0 if weights_B is None else int(weights_B.sum()))

    @property
    def arguments(self) -> dict[str, Ints]:
        """What the loss module takes, by the names of its arguments."""
        found = {
            "input_ids": self.input_ids_N,
            "lengths": self.lengths_B,
            "target_positions": self.target_positions_P,
            "target_ids": self.target_ids_P,
            "token_type_ids": self.token_type_ids_N,
            "position_ids": self.position_ids_N,
            "decoder_ids": self.decoder_ids_M,
            "decoder_lengths": self.decoder_lengths_B,
            "sentence_labels": self.sentence_labels_B,
            "sentence_weights": self.sentence_weights_B,
            "ngram_ids": self.ngram_ids_G,
            "ngram_starts": self.ngram_starts_G,
            "ngram_lengths": self.ngram_lengths_G,
            "ngram_counts": self.ngram_counts_B,
            "ngram_frequencies": self.ngram_frequencies_G,
        }
        return {name: values for name, values in found.items() if values is not None}


class Objective(Protocol):
    """Makes inputs and targets."""

    @property
    def name(self) -> str:
        """Name in the run spec."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What it needs of shards beside ids and words: sentences, gaps, knowledge."""

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document and of its decoder's (0: none) at most.

        Args:
            num_tokens: Tokens of a sample, without special ones.
        """

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples; the same arguments give the same batch."""
