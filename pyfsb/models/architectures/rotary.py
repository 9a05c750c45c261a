# SPDX-License-Identifier: Apache-2.0
"""Rotary positions in interleaved pairs, and the projections of the architectures with them.

Used by `longformer` and `zhouwenwang`, padded and flat: every part takes hidden states of any
leading shape. The names of submodules are those of the published checkpoints. Never masks.

Shapes: T tokens of a row or N of documents end to end, A heads, D width of a head, H hidden.

Source: Su et al. 2021 (RoFormer, arXiv:2104.09864), section 3.2.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from pyfsb.errors import ConfigError

ROTARY_BASE: Final = 10000.0
"""Of the angles: those of the published checkpoints."""


class Rotation(NamedTuple):
    """Cosines and sines of positions."""

    cos_T1D: Tensor
    """[T, 1, D / 2], float32: the same for all heads."""
    sin_T1D: Tensor
    """[T, 1, D / 2], float32."""


def rotation_of(positions_T: Tensor, head_width: int) -> Rotation:
    """Return the rotation of tokens at positions.

    Args:
        positions_T: Positions; scores depend on their differences only.
        head_width: Width of a head, even.
    """
    pairs_D = torch.arange(0, head_width, 2, device=positions_T.device).float()
    frequencies_D = torch.exp(pairs_D * (-math.log(ROTARY_BASE) / head_width))
    angles_T1D = torch.outer(positions_T.float(), frequencies_D)[:, None]
    return Rotation(angles_T1D.cos(), angles_T1D.sin())


def rotate(states_TAD: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of neighbouring channels (2 i, 2 i + 1) by its angle.

    Args:
        states_TAD: Queries or keys, [..., T, A, D].
        rotation: Of their positions.
    """
    even, odd = states_TAD[..., 0::2], states_TAD[..., 1::2]
    turned = (
        even * rotation.cos_T1D - odd * rotation.sin_T1D,
        odd * rotation.cos_T1D + even * rotation.sin_T1D,
    )
    return torch.stack(turned, dim=-1).flatten(-2).to(states_TAD.dtype)


class RotarySelfAttention(nn.Module):
    """Queries, keys and values with rotary positions; who attends to whom is the caller's."""

    def __init__(self, config: Any) -> None:
        """Make the projections.

        Raises:
            ConfigError: The heads do not divide the width, or a head's width is odd.
        """
        super().__init__()
        hidden, heads = config.hidden_size, config.num_attention_heads
        if hidden % (2 * heads):
            raise ConfigError(
                f"hidden_size = {hidden}, num_attention_heads = {heads}: expected heads of equal "
                "and even width (rotary positions turn pairs)"
            )
        self.head_width = hidden // heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.dropout = config.attention_probs_dropout_prob

    def project(self, hidden_TH: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys (both rotated) and values, each [..., T, A, D]."""
        query, key, value = (
            part(hidden_TH).unflatten(-1, (-1, self.head_width))
            for part in (self.query, self.key, self.value)
        )
        return rotate(query, rotation), rotate(key, rotation), value

    @property
    def active_dropout(self) -> float:
        """Share of attention weights dropped: 0 outside of training."""
        return self.dropout if self.training else 0.0
