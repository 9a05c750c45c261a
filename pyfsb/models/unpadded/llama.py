# SPDX-License-Identifier: Apache-2.0
"""LLaMA on documents that lie end to end.

Shapes: N tokens, P chosen ones, H hidden.

Source: the order of modules is that of transformers' modeling_llama (Touvron et al. 2023).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pyfsb.models.unpadded.attention import attend
from pyfsb.models.unpadded.documents import Documents
from pyfsb.models.unpadded.layers import choose, run_layers, split_heads


def forward(
    model: Any,
    ids_N: Tensor,
    types_N: Tensor | None,
    documents: Documents,
    places_P: Tensor | None,
    checkpoints: bool,
) -> Tensor:
    """Return the last hidden states; no token sees a later one, and there are no token types."""
    embedded_NH = model.embed_tokens(ids_N)
    cosines, sines = (
        part_1ND[0] for part_1ND in model.rotary_emb(embedded_NH, documents.positions_N[None])
    )

    def step(layer: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        attended_NH = _attend(
            layer.self_attn, layer.input_layernorm(hidden_NH), documents, cosines, sines
        )
        hidden_NH = choose(hidden_NH + attended_NH, places_P)
        return hidden_NH + layer.mlp(layer.post_attention_layernorm(hidden_NH))

    hidden_NH = run_layers(
        model.layers, step, embedded_NH, checkpoints=checkpoints, places_P=places_P
    )
    return model.norm(hidden_NH)


def _attend(
    attention: Any, hidden_NH: Tensor, documents: Documents, cosines_ND: Tensor, sines_ND: Tensor
) -> Tensor:
    query, key, value = (
        split_heads(part(hidden_NH), attention.head_dim)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, cosines_ND, sines_ND, unsqueeze_dim=1)
    shared = attention.num_key_value_groups  # queries of a group look at one key
    attended_NH = attend(
        query, key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1), documents,
        scale=attention.scaling,
        dropout=attention.attention_dropout if attention.training else 0.0,
        is_causal=True,
    )  # fmt: skip
    return attention.o_proj(attended_NH)
