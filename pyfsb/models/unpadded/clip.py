# SPDX-License-Identifier: Apache-2.0
"""CLIP's text tower on documents that lie end to end.

Shapes: N tokens, P chosen ones, B documents, H hidden.

Source: the order of modules is that of transformers' modeling_clip (Radford et al. 2021).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from pyfsb.models.unpadded.attention import attend
from pyfsb.models.unpadded.documents import Documents
from pyfsb.models.unpadded.layers import choose, run_layers, split_heads

_WRONG_END_ID: Final = 2
"""Configs published with this end token mean the highest id of each text (transformers #24773)."""


def forward(
    model: Any,
    ids_N: Tensor,
    types_N: Tensor | None,
    documents: Documents,
    places_P: Tensor | None,
    checkpoints: bool,
) -> Tensor:
    """Return the last hidden states; it has no token types."""

    def step(layer: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        attended_NH = _attend(layer.self_attn, layer.layer_norm1(hidden_NH), documents)
        hidden_NH = choose(hidden_NH + attended_NH, places_P)
        return hidden_NH + layer.mlp(layer.layer_norm2(hidden_NH))

    embeddings = model.embeddings
    hidden_NH = embeddings.token_embedding(ids_N)
    hidden_NH = hidden_NH + embeddings.position_embedding(documents.positions_N)
    hidden_NH = run_layers(
        model.encoder.layers, step, hidden_NH, checkpoints=checkpoints, places_P=places_P
    )
    return model.final_layer_norm(hidden_NH)


def find_ends(end_id: int, ids_N: Tensor, starts_B: Tensor, ends_B: Tensor) -> Tensor:
    """Return where each text's end token lies: the first of its kind, [B]."""
    positions_N = torch.arange(ids_N.numel(), device=ids_N.device)
    rows_N = torch.bucketize(positions_N, ends_B, right=True)
    is_end_N = ids_N if end_id == _WRONG_END_ID else (ids_N == end_id).to(ids_N.dtype)
    highest_B = torch.zeros_like(ends_B).scatter_reduce(0, rows_N, is_end_N, "amax")
    candidates_N = torch.where(is_end_N == highest_B[rows_N], positions_N, ids_N.numel())
    return torch.full_like(ends_B, ids_N.numel()).scatter_reduce(0, rows_N, candidates_N, "amin")


def _attend(attention: Any, hidden_NH: Tensor, documents: Documents) -> Tensor:
    attended_NH = attend(
        split_heads(attention.q_proj(hidden_NH), attention.head_dim),
        split_heads(attention.k_proj(hidden_NH), attention.head_dim),
        split_heads(attention.v_proj(hidden_NH), attention.head_dim),
        documents,
        scale=attention.scale,
        dropout=attention.dropout if attention.training else 0.0,
        is_causal=True,
    )
    return attention.out_proj(attended_NH)
