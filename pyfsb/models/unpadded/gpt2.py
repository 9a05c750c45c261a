# SPDX-License-Identifier: Apache-2.0
"""GPT-2 on documents that lie end to end.

Shapes: N tokens, P chosen ones, H hidden.

Source: the order of modules is that of transformers' modeling_gpt2 (Radford et al. 2019).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

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
    """Return the last hidden states; no token sees a later one."""

    def step(block: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        hidden_NH = hidden_NH + _attend(block.attn, block.ln_1(hidden_NH), documents)
        hidden_NH = choose(hidden_NH, places_P)
        return hidden_NH + block.mlp(block.ln_2(hidden_NH))

    hidden_NH = model.wte(ids_N) + model.wpe(documents.positions_N)
    if types_N is not None:
        hidden_NH = hidden_NH + model.wte(types_N)
    hidden_NH = run_layers(
        model.h, step, model.drop(hidden_NH), checkpoints=checkpoints, places_P=places_P
    )
    return model.ln_f(hidden_NH)


def _attend(attention: Any, hidden_NH: Tensor, documents: Documents) -> Tensor:
    query, key, value = (
        split_heads(states_NH, attention.head_dim)
        for states_NH in attention.c_attn(hidden_NH).split(attention.split_size, dim=-1)
    )
    attended_NH = attend(
        query, key, value, documents,
        scale=attention.scaling,
        dropout=attention.attn_dropout.p if attention.training else 0.0,
        is_causal=True,
    )  # fmt: skip
    return attention.resid_dropout(attention.c_proj(attended_NH))
