# SPDX-License-Identifier: Apache-2.0
"""BERT, RoBERTa and MegatronBert on documents that lie end to end.

Shapes: N tokens, P chosen ones, H hidden.

Source: the order of modules is that of transformers' modeling_bert and modeling_megatron_bert;
norms stand after the residual sums there (Devlin et al. 2019) and before the layers here
(Shoeybi et al. 2019).
"""

from __future__ import annotations

from typing import Any

import torch
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
    """Return the last hidden states of a BERT, a RoBERTa or a ChineseCLIP text tower."""

    def step(layer: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        attended_NH = choose(_attend(layer.attention.self, hidden_NH, documents), places_P)
        attended_NH = layer.attention.output(attended_NH, choose(hidden_NH, places_P))
        return layer.output(layer.intermediate(attended_NH), attended_NH)

    hidden_NH = embed(model, ids_N, types_N, documents)
    return run_layers(
        model.encoder.layer, step, hidden_NH, checkpoints=checkpoints, places_P=places_P
    )


def forward_megatron(
    model: Any,
    ids_N: Tensor,
    types_N: Tensor | None,
    documents: Documents,
    places_P: Tensor | None,
    checkpoints: bool,
) -> Tensor:
    """Return the last hidden states of a MegatronBert."""

    def step(layer: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        normed_NH = layer.attention.ln(hidden_NH)
        attended_NH = choose(_attend(layer.attention.self, normed_NH, documents), places_P)
        hidden_NH = layer.attention.output(attended_NH, choose(hidden_NH, places_P))
        return layer.output(layer.intermediate(layer.ln(hidden_NH)), hidden_NH)

    hidden_NH = embed(model, ids_N, types_N, documents)
    hidden_NH = run_layers(
        model.encoder.layer, step, hidden_NH, checkpoints=checkpoints, places_P=places_P
    )
    return model.encoder.ln(hidden_NH)


def embed(model: Any, ids_N: Tensor, types_N: Tensor | None, documents: Documents) -> Tensor:
    """Return the embeddings of tokens, positions counted within each document."""
    # Some take types that are left out from a buffer which is no longer than one document.
    types_N = torch.zeros_like(ids_N) if types_N is None else types_N
    # RoBERTa's first positions are those of padding.
    is_roberta = model.config.model_type == "roberta"
    first = int(model.config.pad_token_id) + 1 if is_roberta else 0
    embedded_1NH: Tensor = model.embeddings(
        input_ids=ids_N[None],
        token_type_ids=types_N[None],
        position_ids=documents.positions_N[None] + first,
    )
    return embedded_1NH[0]


def _attend(attention: Any, hidden_NH: Tensor, documents: Documents) -> Tensor:
    width = attention.attention_head_size
    return attend(
        split_heads(attention.query(hidden_NH), width),
        split_heads(attention.key(hidden_NH), width),
        split_heads(attention.value(hidden_NH), width),
        documents,
        scale=width**-0.5,
        dropout=attention.dropout.p if attention.training else 0.0,
        is_causal=bool(getattr(attention, "is_decoder", False)),
    )
