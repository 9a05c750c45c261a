# SPDX-License-Identifier: Apache-2.0
"""T5 and mT5 on documents that lie end to end.

Shapes: N tokens of the encoder's documents, M of the decoder's, H hidden, A attention heads,
T tokens of one document.

Source: the order of modules is that of transformers' modeling_t5 (Raffel et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyfsb.models.unpadded.attention import Bias, attend, longest_row
from pyfsb.models.unpadded.documents import Documents
from pyfsb.models.unpadded.layers import run_layers, split_heads


def run_stack(
    stack: Any,
    ids_N: Tensor,
    documents: Documents,
    encoded_MH: Tensor | None,
    encoded: Documents | None,
    checkpoints: bool,
) -> Tensor:
    """Return the last hidden states of the encoder or decoder, before any scaling for the head."""
    bias = _relative_bias(stack.block[0].layer[0].SelfAttention, documents)

    def step(block: Any, hidden_NH: Tensor, _: Tensor | None) -> Tensor:
        part = block.layer[0]
        normed_NH = part.layer_norm(hidden_NH)
        attended_NH = _attend(
            part.SelfAttention, normed_NH, normed_NH, documents, None, bias, encoded_MH is not None
        )
        hidden_NH = _clamp(hidden_NH + part.dropout(attended_NH))
        if encoded_MH is not None:
            part = block.layer[1]
            attended_NH = _attend(
                part.EncDecAttention, part.layer_norm(hidden_NH), encoded_MH, documents, encoded,
                None, False,
            )  # fmt: skip
            hidden_NH = _clamp(hidden_NH + part.dropout(attended_NH))
        return _clamp(block.layer[-1](hidden_NH))

    hidden_NH = stack.dropout(stack.embed_tokens(ids_N))
    hidden_NH = run_layers(stack.block, step, hidden_NH, checkpoints=checkpoints)
    return stack.dropout(stack.final_layer_norm(hidden_NH))


def _relative_bias(attention: Any, documents: Documents) -> Bias:
    """Return what every layer adds to its scores; all documents share the longest one's table."""
    length = longest_row(documents)
    table_1ATT: Tensor = attention.compute_bias(length, length, device=documents.device)
    return lambda query, key: table_1ATT[..., : query.shape[-2], : key.shape[-2]]


def _attend(
    attention: Any,
    queries_NH: Tensor,
    states_MH: Tensor,
    documents: Documents,
    others: Documents | None,
    bias: Callable[[Tensor, Tensor], Tensor] | None,
    is_causal: bool,
) -> Tensor:
    width = attention.key_value_proj_dim
    attended_NH = attend(
        split_heads(attention.q(queries_NH), width),
        split_heads(attention.k(states_MH), width),
        split_heads(attention.v(states_MH), width),
        documents,
        keys=others,
        scale=attention.scaling,
        dropout=attention.dropout if attention.training else 0.0,
        is_causal=is_causal,
        bias=bias,
    )
    return attention.o(attended_NH)


def _clamp(hidden_NH: Tensor) -> Tensor:
    """Keep fp16 finite, as transformers does."""
    if hidden_NH.dtype != torch.float16:
        return hidden_NH
    highest = torch.finfo(torch.float16).max
    limit = torch.where(torch.isinf(hidden_NH).any(), highest - 1000, highest)
    return torch.clamp(hidden_NH, min=-limit, max=limit)
