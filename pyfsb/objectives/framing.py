# SPDX-License-Identifier: Apache-2.0
"""Special tokens around documents, and the decoder's side of a document.

Shapes: B documents, N tokens of all documents end to end, M of them with what stands around.

Called by objectives; draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyfsb.objectives.protocol import Bits, Ints
from pyfsb.objectives.units import spread


def frame(
    ids_N: Ints, lengths_B: Ints, *, before: int | None, after: int | None
) -> tuple[Ints, Ints]:
    """Put a token before and one behind every document; None puts none.

    Returns:
        Ids end to end, [M], and the length of each document, [B].
    """
    framed_B = lengths_B + ((before is not None) + (after is not None))
    ends_B = np.cumsum(framed_B)
    total = int(ends_B[-1]) if ends_B.size else 0
    framed = np.empty(total, dtype=np.int64)
    is_inner = np.ones(total, dtype=np.bool_)
    if before is not None:
        framed[ends_B - framed_B] = before
        is_inner[ends_B - framed_B] = False
    if after is not None:
        framed[ends_B - 1] = after
        is_inner[ends_B - 1] = False
    framed[is_inner] = ids_N
    return framed, framed_B


def shift_right(target_ids_M: Ints, lengths_B: Ints, *, start: int) -> Ints:
    """Return what a decoder reads to write these documents: the start token, then all but the last.

    Source: teacher forcing of encoder-decoders as T5, BART and Pegasus train.
    """
    decoder_ids_M = np.empty_like(target_ids_M)
    decoder_ids_M[1:] = target_ids_M[:-1]
    firsts_B = np.cumsum(lengths_B) - lengths_B
    decoder_ids_M[firsts_B[lengths_B > 0]] = start
    return decoder_ids_M


def join_parts(parts: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Put the parts of every document behind each other.

    Args:
        parts: Ids of all documents end to end and the length of each, [B].

    Returns:
        Ids end to end, [M], and the length of each document, [B].
    """
    joined_B = np.sum([lengths_B for _, lengths_B in parts], axis=0)
    joined = np.empty(int(joined_B.sum()), dtype=np.int64)
    places_B = np.cumsum(joined_B) - joined_B
    for ids, lengths_B in parts:
        joined[spread(places_B, lengths_B)] = ids
        places_B = places_B + lengths_B
    return joined, joined_B


def repeat_part(ids: Sequence[int], num_documents: int) -> tuple[Ints, Ints]:
    """Return a part that is the same in every document, for `join_parts`."""
    lengths_B = np.full(num_documents, len(ids), dtype=np.int64)
    return np.tile(np.array(ids, dtype=np.int64), num_documents), lengths_B


def count_kept(is_kept_N: Bits, lengths_B: Ints) -> Ints:
    """Return how many tokens of each document are kept, [B]."""
    sums: Ints = np.concatenate(([0], np.cumsum(is_kept_N)))
    ends_B = np.cumsum(lengths_B)
    kept_B: Ints = sums[ends_B] - sums[ends_B - lengths_B]
    return kept_B
