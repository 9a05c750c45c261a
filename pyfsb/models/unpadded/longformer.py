# SPDX-License-Identifier: Apache-2.0
"""RoPE-Longformer on documents that lie end to end.

Documents no longer than the window are attended to as those of any encoder; longer ones in rows of
about equal length, by the model's own blocks.

Shapes: N tokens, P chosen ones, H hidden.

Source: the order of modules is that of `pyfsb.models.architectures.longformer_model`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyfsb.models.architectures.rotary import rotation_of
from pyfsb.models.unpadded.attention import Heads, PaddedGroup, attend, in_padded_rows
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
    """Return the last hidden states; global tokens are those of the model's head."""
    width = model.config.hidden_size // model.config.num_attention_heads
    rotation = rotation_of(documents.positions_N, width)

    def attend_layer(layer: Any, heads: Heads) -> Tensor:
        if layer.reach is None or layer.reach >= documents.max_length - 1:
            return attend(
                *heads, documents,
                scale=width**-0.5, dropout=layer.attention.self.active_dropout, is_causal=False,
            )  # fmt: skip

        def attend_rows(rows: Heads, group: PaddedGroup) -> Tensor:
            is_global = model.find_global(ids_N[group.queries_GT])
            return layer.attend(*rows, group.is_key_GS, is_global)

        return in_padded_rows(heads, documents, documents, attend_rows)

    def step(layer: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        heads = Heads(*layer.attention.self.project(hidden_NH, rotation))
        attended_NH = choose(attend_layer(layer, heads), places_P)
        attended_NH = layer.attention.output(attended_NH, choose(hidden_NH, places_P))
        return layer.output(layer.intermediate(attended_NH), attended_NH)

    return run_layers(
        model.encoder.layer, step, model.embeddings(ids_N, types_N),
        checkpoints=checkpoints, places_P=places_P,
    )  # fmt: skip
