# SPDX-License-Identifier: Apache-2.0
"""Zhouwenwang-Unified on documents that lie end to end; token types say who sees whom in each.

Shapes: N tokens, P chosen ones, H hidden.

Source: the order of modules is that of `pyfsb.models.architectures.zhouwenwang_model`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyfsb.errors import ConfigError
from pyfsb.models.architectures.rotary import rotation_of
from pyfsb.models.unpadded.attention import Heads, attend
from pyfsb.models.unpadded.documents import Documents
from pyfsb.models.unpadded.layers import choose, run_layers


def forward(
    model: Any,
    ids_N: Tensor,
    types_N: Tensor | None,
    documents: Documents,
    places_P: Tensor | None,
    checkpoints: bool,
) -> Tensor:
    """Return the last hidden states.

    Raises:
        ConfigError: The model has the legacy mask, whose states depend on padding.
    """
    if model.config.legacy_additive_mask:
        raise ConfigError(
            "legacy_additive_mask = true: states depend on padding; expected batch.layout = padded"
        )
    types_N, steps_N, is_causal = _read_types(model, ids_N, types_N)
    width = model.config.hidden_size // model.config.num_attention_heads
    rotation = rotation_of(documents.positions_N, width)

    def step(layer: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        part = layer.attention.self
        attended_NH = attend(
            *Heads(*part.project(layer.attention.ln(hidden_NH), rotation)), documents,
            scale=width**-0.5, dropout=part.active_dropout, is_causal=is_causal, steps_N=steps_N,
        )  # fmt: skip
        hidden_NH = layer.attention.output(
            choose(attended_NH, places_P), choose(hidden_NH, places_P)
        )
        return layer.output(layer.intermediate(layer.ln(hidden_NH)), hidden_NH)

    hidden_NH = run_layers(
        model.encoder.layer, step, model.embeddings(ids_N, types_N),
        checkpoints=checkpoints, places_P=places_P,
    )  # fmt: skip
    return model.encoder.ln(hidden_NH)


def _read_types(
    model: Any, ids_N: Tensor, types_N: Tensor | None
) -> tuple[Tensor, Tensor | None, bool]:
    """Return types, steps where a mask is needed, and whether all tokens see earlier ones alone."""
    if types_N is None or model.ignores_token_types:
        default = 0 if model.ignores_token_types else model.default_token_type
        return torch.full_like(ids_N, default), None, default == 1
    # Kernels for ragged documents know these two; a mask takes rows of padding.
    if not types_N.any():
        return types_N, None, False
    if types_N.all():
        return types_N, None, True
    return types_N, types_N.cumsum(0), False  # compared within a document only
