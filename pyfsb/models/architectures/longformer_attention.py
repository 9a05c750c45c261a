# SPDX-License-Identifier: Apache-2.0
"""Attention of RoPE-Longformer: within a sliding window, with global tokens, or full.

Queries are cut into blocks that see their own keys and those within reach at both sides, so memory
grows with tokens x window, never with tokens x tokens. Called by `longformer` and by its unpadded
forward. Never rotates or projects.

Shapes: B rows, A heads, T tokens of a row, D width of a head, C queries of a block, S keys that a
block sees, K blocks, G global tokens of the row that has the most.

Source: Beltagy et al. 2020 (Longformer, arXiv:2004.05150), section 3; here the global tokens share
the projections of the others, as in the published checkpoints.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_MIN_BLOCK_TOKENS: Final = 64
"""Blocks of fewer queries would be many small products."""


def attend_fully(
    query_BATD: Tensor,
    key_BATD: Tensor,
    value_BATD: Tensor,
    *,
    is_real_BT: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Let each token attend to all real ones of its row.

    Args:
        query_BATD: Queries.
        key_BATD: Keys.
        value_BATD: Values.
        is_real_BT: False on padding; None: there is none.
        dropout: Share of attention weights dropped.

    Returns:
        Attended values [B, A, T, D]; those of padding are ordinary and mean nothing.
    """
    mask_B11T = None
    if is_real_BT is not None:
        # A row of padding alone attends to itself: no softmax over nothing.
        mask_B11T = (is_real_BT | ~is_real_BT.any(-1, keepdim=True))[:, None, None, :]
    return functional.scaled_dot_product_attention(
        query_BATD, key_BATD, value_BATD, mask_B11T, dropout_p=dropout
    )


def attend_in_window(
    query_BATD: Tensor,
    key_BATD: Tensor,
    value_BATD: Tensor,
    *,
    reach: int,
    is_real_BT: Tensor | None = None,
    is_global_BT: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Let each token attend to those at most `reach` away and to the global ones.

    Args:
        query_BATD: Queries.
        key_BATD: Keys.
        value_BATD: Values.
        reach: Tokens seen to each side, at least 1.
        is_real_BT: False on padding; None: there is none.
        is_global_BT: True on tokens that see all and are seen by all; None: there are none.
        dropout: Share of attention weights dropped.

    Returns:
        Attended values [B, A, T, D], zero at padding.
    """
    if reach >= query_BATD.shape[-2] - 1:
        attended_BATD = attend_fully(
            query_BATD, key_BATD, value_BATD, is_real_BT=is_real_BT, dropout=dropout
        )
    elif is_global_BT is None:
        attended_BATD = _attend_blocks(
            query_BATD, key_BATD, value_BATD, reach, is_real_BT, None, dropout
        )
    else:
        if is_real_BT is not None:
            is_global_BT = is_global_BT & is_real_BT
        attended_BATD = _attend_with_globals(
            query_BATD, key_BATD, value_BATD, reach, is_real_BT, is_global_BT, dropout
        )
    if is_real_BT is None:
        return attended_BATD
    return attended_BATD.masked_fill(~is_real_BT[:, None, :, None], 0.0)


def _attend_with_globals(
    query_BATD: Tensor,
    key_BATD: Tensor,
    value_BATD: Tensor,
    reach: int,
    is_real_BT: Tensor | None,
    is_global_BT: Tensor,
    dropout: float,
) -> Tensor:
    counts_B = is_global_BT.sum(-1)
    num_global = int(counts_B.max())
    if num_global == 0:
        return _attend_blocks(query_BATD, key_BATD, value_BATD, reach, is_real_BT, None, dropout)
    order_BT = is_global_BT.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    width = query_BATD.shape[-1]
    places_BAGD = order_BT[:, None, :num_global, None].expand(-1, query_BATD.shape[1], -1, width)
    is_global_BG = torch.arange(num_global, device=counts_B.device) < counts_B[:, None]
    columns = (key_BATD.gather(2, places_BAGD), value_BATD.gather(2, places_BAGD), is_global_BG)
    is_near_BT = ~is_global_BT if is_real_BT is None else is_real_BT & ~is_global_BT
    attended_BATD = _attend_blocks(
        query_BATD, key_BATD, value_BATD, reach, is_near_BT, columns, dropout
    )
    seeing_BAGD = attend_fully(
        query_BATD.gather(2, places_BAGD), key_BATD, value_BATD,
        is_real_BT=is_real_BT, dropout=dropout,
    )  # fmt: skip
    # Rows with fewer global tokens keep what they have at the other places.
    seeing_BAGD = torch.where(
        is_global_BG[:, None, :, None], seeing_BAGD, attended_BATD.gather(2, places_BAGD)
    )
    return attended_BATD.scatter(2, places_BAGD, seeing_BAGD)


def _attend_blocks(
    query_BATD: Tensor,
    key_BATD: Tensor,
    value_BATD: Tensor,
    reach: int,
    is_near_BT: Tensor | None,
    columns: tuple[Tensor, Tensor, Tensor] | None,
    dropout: float,
) -> Tensor:
    """Attend block by block.

    Args:
        query_BATD: Queries.
        key_BATD: Keys.
        value_BATD: Values.
        reach: Tokens seen to each side.
        is_near_BT: True on keys that a window shows; None: all.
        columns: Keys and values [B, A, G, D] that every query sees beside its window, and which of
            them exist, [B, G].
        dropout: Share of attention weights dropped.
    """
    num_rows, num_heads, length, width = query_BATD.shape
    size = min(max(reach, _MIN_BLOCK_TOKENS), length)
    num_blocks = -(-length // size)
    fill = num_blocks * size - length

    def cut(states_BATD: Tensor, margin: int) -> Tensor:
        """Return blocks as rows, [B x K, A, C or S, D]."""
        padded = functional.pad(states_BATD, (0, 0, margin, margin + fill))
        blocks = padded.unfold(2, size + 2 * margin, size)  # [B, A, K, D, S]
        return blocks.permute(0, 2, 1, 4, 3).flatten(0, 1)

    is_near_BT = query_BATD.new_ones((), dtype=torch.bool).expand(
        num_rows, length
    ) if is_near_BT is None else is_near_BT  # fmt: skip
    is_near_BKS = functional.pad(is_near_BT, (reach, reach + fill)).unfold(
        1, size + 2 * reach, size
    )
    steps_CS = (
        torch.arange(size + 2 * reach, device=query_BATD.device)
        - torch.arange(size, device=query_BATD.device)[:, None]
    )
    # A query sees its own key whatever it is: rows that mean nothing stay finite.
    is_seen_BKCS = ((steps_CS >= 0) & (steps_CS <= 2 * reach)) & is_near_BKS[:, :, None, :]
    mask = (is_seen_BKCS | (steps_CS == reach)).flatten(0, 1)[:, None]
    keys, values = cut(key_BATD, reach), cut(value_BATD, reach)
    if columns is not None:
        *added, is_column_BG = columns
        keys, values = (
            torch.cat([states.repeat_interleave(num_blocks, 0), blocks], dim=-2)
            for states, blocks in zip(added, (keys, values), strict=True)
        )
        is_column = is_column_BG.repeat_interleave(num_blocks, 0)[:, None, None, :]
        mask = torch.cat([is_column.expand(-1, -1, size, -1), mask], dim=-1)
    attended = functional.scaled_dot_product_attention(
        cut(query_BATD, 0), keys, values, mask, dropout_p=dropout
    )
    attended = torch.unflatten(attended, 0, (num_rows, num_blocks)).transpose(1, 2)
    return attended.reshape(num_rows, num_heads, -1, width)[:, :, :length]
