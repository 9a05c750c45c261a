# SPDX-License-Identifier: Apache-2.0
"""BART and Pegasus on documents that lie end to end.

Shapes: N tokens of the encoder's documents, M of the decoder's, H hidden.

Source: the order of modules is that of transformers' modeling_bart (norms after the sums, Lewis et
al. 2020) and modeling_pegasus (norms before the layers, Zhang et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

from pyfsb.models.unpadded.attention import attend
from pyfsb.models.unpadded.documents import Documents
from pyfsb.models.unpadded.layers import is_layer_dropped, run_layers, split_heads


def run_stack(
    stack: Any,
    ids_N: Tensor,
    documents: Documents,
    encoded_MH: Tensor | None,
    encoded: Documents | None,
    checkpoints: bool,
) -> Tensor:
    """Return the last hidden states of the encoder or decoder, BART's or Pegasus'."""
    is_pegasus = not hasattr(stack, "layernorm_embedding")
    residual = _residual_before if is_pegasus else _residual_after

    def step(layer: Any, hidden_NH: Tensor, _: Tensor | None) -> Tensor:
        is_decoder = encoded_MH is not None

        def attend_self(states_NH: Tensor) -> Tensor:
            return _attend(layer.self_attn, states_NH, states_NH, documents, None, is_decoder)

        def attend_encoded(states_NH: Tensor) -> Tensor:
            return _attend(layer.encoder_attn, states_NH, encoded_MH, documents, encoded, False)

        def feed(states_NH: Tensor) -> Tensor:
            states_NH = layer.activation_fn(layer.fc1(states_NH))
            return layer.fc2(
                functional.dropout(states_NH, layer.activation_dropout, layer.training)
            )

        hidden_NH = residual(layer, layer.self_attn_layer_norm, attend_self, hidden_NH)
        if is_decoder:
            hidden_NH = residual(layer, layer.encoder_attn_layer_norm, attend_encoded, hidden_NH)
        return residual(layer, layer.final_layer_norm, feed, hidden_NH)

    hidden_NH = _embed(stack, ids_N, documents)
    layers = [
        layer
        for layer in stack.layers
        if not is_layer_dropped(stack.layerdrop, is_training=stack.training)
    ]
    hidden_NH = run_layers(layers, step, hidden_NH, checkpoints=checkpoints)
    return stack.layer_norm(hidden_NH) if is_pegasus else hidden_NH


def _embed(stack: Any, ids_N: Tensor, documents: Documents) -> Tensor:
    hidden_NH = stack.embed_tokens(ids_N)
    if hasattr(stack, "layernorm_embedding"):
        positions = stack.embed_positions(ids_N[None], position_ids=documents.positions_N)[0]
        hidden_NH = stack.layernorm_embedding(hidden_NH + positions)
    else:
        positions = stack.embed_positions(None, position_ids=documents.positions_N)
        hidden_NH = hidden_NH * stack.embed_scale + positions
    return functional.dropout(hidden_NH, stack.dropout, stack.training)


def _residual_after(
    layer: Any, norm: Any, part: Callable[[Tensor], Tensor], hidden_NH: Tensor
) -> Tensor:
    changed_NH = functional.dropout(part(hidden_NH), layer.dropout, layer.training)
    return norm(hidden_NH + changed_NH)


def _residual_before(
    layer: Any, norm: Any, part: Callable[[Tensor], Tensor], hidden_NH: Tensor
) -> Tensor:
    return hidden_NH + functional.dropout(part(norm(hidden_NH)), layer.dropout, layer.training)


def _attend(
    attention: Any,
    queries_NH: Tensor,
    states_MH: Tensor | None,
    documents: Documents,
    others: Documents | None,
    is_causal: bool,
) -> Tensor:
    attended_NH = attend(
        split_heads(attention.q_proj(queries_NH), attention.head_dim),
        split_heads(attention.k_proj(states_MH), attention.head_dim),
        split_heads(attention.v_proj(states_MH), attention.head_dim),
        documents,
        keys=others,
        scale=attention.scaling,
        dropout=attention.dropout if attention.training else 0.0,
        is_causal=is_causal,
    )
    return attention.out_proj(attended_NH)
