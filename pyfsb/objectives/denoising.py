# SPDX-License-Identifier: Apache-2.0
"""Randeng-Transformer's denoising: a spoiled text, a prompt, the text; a causal model writes it.

Shapes: B samples, N tokens end to end, P predicted positions.

    “ a c b x d ” 改写后是 “ a b c d ” <end>

Noise in this order: the sentences of some samples are shuffled; neighbours change places; tokens
are left out or replaced; tokens are put in. Only the text behind the prompt, its closing mark and
the end are asked for. A document has about twice the tokens of its sample. Never reads a file.

Source: kinds of noise and prompt of the Randeng-Transformer-1.1B-Denoise training (fengshen's
transfo_xl_denoise); rates were not published and are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pyfsb.errors import ConfigError
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.framing import join_parts, repeat_part
from pyfsb.objectives.masked_lm import pick
from pyfsb.objectives.protocol import Inputs, Ints, Samples
from pyfsb.objectives.sentences import find_sentences, shuffle_sentences
from pyfsb.objectives.special import SpecialIds
from pyfsb.objectives.units import spread

_PURPOSES: Final = (
    Purpose.KIND, Purpose.SENTENCES, Purpose.CUT, Purpose.SWAP, Purpose.ACTION,
    Purpose.REPLACEMENT, Purpose.INSERTION, Purpose.INSERTED,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptIds:
    """The tokens around the spoiled text and the text."""

    before: tuple[int, ...]
    """Before the spoiled text."""
    between: tuple[int, ...]
    """Between the two."""
    after: tuple[int, ...]
    """Behind the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRates:
    """How much is spoiled, as shares in [0, 1]."""

    insert: float
    """Of tokens behind which a random one is put."""
    delete: float
    """Of tokens left out."""
    replace: float
    """Of tokens that become a random one."""
    swap: float
    """Of tokens that change places with a neighbour."""
    reorder: float
    """Of samples whose sentences are shuffled."""


class Denoising:
    """Spoils texts and asks for them behind a prompt."""

    name: ClassVar[str] = "denoising"
    columns: ClassVar[tuple[str, ...]] = ("sentences",)

    def __init__(self, special: SpecialIds, *, prompt: PromptIds, rates: NoiseRates) -> None:
        """Keep ids and rates.

        Raises:
            ConfigError: Nothing stands before the text, or the vocabulary lacks an end.
        """
        if not prompt.before and not prompt.between:
            raise ConfigError("objective.denoising.template has no tokens around {text}")
        self._eos = special.need("eos", self.name)
        self._ordinary = special.ordinary
        self._prompt = prompt
        self._rates = rates

    def build(self, samples: Samples, *, seed: int) -> Inputs:
        """Return the batch of these samples.

        Raises:
            DataError: The samples have no sentence bits.
        """
        draws = Draws(samples, seed=seed, purposes=_PURPOSES)
        num_samples = samples.lengths_B.size
        last = repeat_part([*self._prompt.after, self._eos], num_samples)
        spoiled = self.spoil(samples, draws)
        parts = [
            repeat_part(self._prompt.before, num_samples),
            spoiled,
            repeat_part(self._prompt.between, num_samples),
            (samples.ids_N, samples.lengths_B),
            last,
        ]
        ids_N, lengths_B = join_parts(parts)
        asked_B = samples.lengths_B + last[1]
        positions_P = spread(np.cumsum(lengths_B) - asked_B - 1, asked_B)
        return Inputs(
            input_ids_N=ids_N,
            lengths_B=lengths_B,
            target_positions_P=positions_P,
            target_ids_P=ids_N[positions_P + 1],
        )

    def spoil(self, samples: Samples, draws: Draws) -> tuple[Ints, Ints]:
        """Return spoiled ids end to end, and the tokens of each spoiled sample, [B]."""
        among_B = draws.of_rows(Purpose.KIND) < self._rates.reorder
        sentences = find_sentences(samples, self.name)
        samples = shuffle_sentences(samples, sentences, draws, among_B=among_B)
        lengths_B = samples.lengths_B
        ids_N = self._swap(samples, draws)
        action_N = draws.of_all(Purpose.ACTION, lengths_B)
        is_left_out_N = action_N < self._rates.delete
        replaced = np.flatnonzero(
            ~is_left_out_N & (action_N < self._rates.delete + self._rates.replace)
        )
        others_N = draws.of_all(Purpose.REPLACEMENT, lengths_B)
        ids_N[replaced] = pick(self._ordinary, others_N[replaced])
        is_followed_N = draws.of_all(Purpose.INSERTION, lengths_B) < self._rates.insert
        inserted_N = draws.of_all(Purpose.INSERTED, lengths_B)[is_followed_N]
        counts_N = 1 - is_left_out_N.astype(np.int64) + is_followed_N
        spoiled = np.repeat(ids_N, counts_N)
        ends_N = np.cumsum(counts_N)
        spoiled[ends_N[is_followed_N] - 1] = pick(self._ordinary, inserted_N)
        rows_N = samples.rows_N
        spoiled_B = np.bincount(rows_N, weights=counts_N, minlength=lengths_B.size)
        return spoiled, spoiled_B.astype(np.int64)

    def sizes(self, num_tokens: int) -> tuple[int, int]:
        """Return the tokens of a document of a sample of so many tokens at most: input, decoder."""
        prompt: Sequence[int] = (*self._prompt.before, *self._prompt.between, *self._prompt.after)
        most = 2 * num_tokens if self._rates.insert else num_tokens
        return most + num_tokens + len(prompt) + 1, 0

    def _swap(self, samples: Samples, draws: Draws) -> Ints:
        """Return ids with neighbours swapped; pairs begin at even or at odd places of a sample."""
        places_N = samples.positions_N
        is_odd_B = draws.of_rows(Purpose.CUT) < 0.5
        lengths_N = np.repeat(samples.lengths_B, samples.lengths_B)
        opens_N = (places_N % 2 == np.repeat(is_odd_B, samples.lengths_B)) & (
            places_N + 1 < lengths_N
        )
        swaps_N = draws.of_all(Purpose.SWAP, samples.lengths_B) < self._rates.swap
        firsts = np.flatnonzero(opens_N & swaps_N)
        ids_N = samples.ids_N.copy()
        ids_N[firsts], ids_N[firsts + 1] = samples.ids_N[firsts + 1], samples.ids_N[firsts]
        return ids_N
