# SPDX-License-Identifier: Apache-2.0
"""Any objective, with the n-grams of what it shows: for ZEN.

N-grams are matched on the inputs that the objective made, so one that a hidden token is part of is
not there. Made by training for models with a lexicon. Never changes inputs or targets.

Shapes: B samples, N tokens end to end, G n-grams.

Source: Diao et al. 2020 (arXiv:1911.00720); matching behind masking is our choice.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from pyfsb.objectives.protocol import Inputs, Objective, Samples
from pyfsb.seeding import hash64
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon, NgramLimit, NgramMatches

_CHOICE: Final = 7001
"""Tells the choice among too many n-grams from other random choices about a sample."""


class WithNgrams:
    """An objective whose inputs hold n-grams."""

    def __init__(
        self, objective: Objective, lexicon: NgramLexicon, *, limit: NgramLimit | None = None
    ) -> None:
        """Wrap an objective.

        Args:
            objective: Makes inputs and targets.
            lexicon: Of the model's vocabulary.
            limit: How many n-grams texts may have; None: any number.
        """
        self._objective = objective
        self._lexicon = lexicon
        self._limit = limit

    @property
    def name(self) -> str:
        """Name of the objective within."""
        return self._objective.name

    @property
    def columns(self) -> tuple[str, ...]:
        """What the objective within needs of shards."""
        return self._objective.columns

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document and of its decoder's at most, from a sample's."""
        return self._objective.sizes(num_tokens)

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples; the same arguments give the same batch."""
        inputs = self._objective.build(samples, seed=seed)
        keys_B = hash64(seed, samples.passes_B, _CHOICE, samples.sample_ids_B)
        matches = self._lexicon.find(
            inputs.input_ids_N, inputs.lengths_B, limit=self._limit, keys_B=keys_B
        )
        return add_ngrams(inputs, matches)


def add_ngrams(inputs: Inputs, matches: NgramMatches) -> Inputs:
    """Return inputs with n-grams, such as labelled texts with those that `find` gave of them."""
    return dataclasses.replace(
        inputs,
        ngram_ids_G=matches.ids_G,
        ngram_starts_G=matches.starts_G,
        ngram_lengths_G=matches.lengths_G,
        ngram_frequencies_G=matches.frequencies_G,
        ngram_counts_B=matches.counts_B,
    )
