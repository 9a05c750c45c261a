# SPDX-License-Identifier: Apache-2.0
"""The sentences of samples, and samples with their tokens in another order.

Shapes: B samples, N tokens end to end, S sentences end to end.

Called by objectives that shuffle or choose sentences; the data stage found where these begin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pyfsb.errors import DataError
from pyfsb.objectives.draws import Draws, Purpose
from pyfsb.objectives.protocol import Bits, Ints, Samples
from pyfsb.objectives.units import Units, find_units, order_within_rows


def find_sentences(samples: Samples, objective: str) -> Units:
    """Return the sentences of samples; a sample always begins one.

    Raises:
        DataError: The samples have no sentence bits.
    """
    if samples.sentences_N is None:
        raise DataError(
            f"{objective} needs to know where sentences begin: the samples have no column "
            "`sentences`; prepare the data again"
        )
    return find_units(samples.sentences_N, samples.lengths_B)


def shuffle_sentences(
    samples: Samples, sentences: Units, draws: Draws, *, among_B: Bits | None = None
) -> Samples:
    """Return samples with their sentences in random order.

    Args:
        samples: The batch.
        sentences: Of these samples.
        draws: Has `Purpose.SENTENCES`.
        among_B: Samples to shuffle. None: all.
    """
    keys_S = draws.bits_of_all(Purpose.SENTENCES, sentences.counts_B)
    rows_S = sentences.rows_U
    if among_B is not None:
        keys_S = np.where(among_B[rows_S], keys_S, np.arange(keys_S.size, dtype=np.uint64))
    order_S = order_within_rows(keys_S, rows_S, samples.lengths_B.size)
    starts_N = np.zeros(samples.ids_N.size, dtype=np.bool_)
    starts_N[sentences.bounds[:-1]] = True
    samples = replace(samples, sentences_N=starts_N, words_N=samples.words_N | starts_N)
    return reorder(samples, sentences.tokens_of(order_S), samples.lengths_B)


def reorder(samples: Samples, tokens_N: Ints, lengths_B: Ints) -> Samples:
    """Return samples that are made of other tokens of theirs.

    Args:
        samples: The batch.
        tokens_N: The tokens, sample by sample: indices into the old N.
        lengths_B: Tokens of each sample now.
    """
    sentences_N = samples.sentences_N
    return replace(
        samples,
        ids_N=samples.ids_N[tokens_N],
        words_N=samples.words_N[tokens_N],
        lengths_B=lengths_B,
        sentences_N=None if sentences_N is None else sentences_N[tokens_N],
        gaps_N=None if samples.gaps_N is None else samples.gaps_N[tokens_N],
        knowledge_N=None if samples.knowledge_N is None else samples.knowledge_N[tokens_N],
    )
