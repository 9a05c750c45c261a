# SPDX-License-Identifier: Apache-2.0
"""DeBERTa-v2 on documents that lie end to end, without scores of absent relative positions.

A document of T tokens has 2 T - 1 relative positions. Their embeddings alone are projected, and the
scores of tokens against positions ([T, 2 T - 1]) become those of tokens against tokens ([T, T]) by
a view that moves each row by one, so nothing is gathered or scattered.

Shapes: N tokens, P chosen ones, H hidden, U distinct buckets, R relative positions, A heads,
D width of a head, G documents of equal (padded) length T.

Source: He et al. 2021 (disentangled attention, arXiv:2006.03654, section 3.2); the order of modules
and the buckets are those of transformers' modeling_deberta_v2. Moving rows by a view is the shift
of Dai et al. 2019 (arXiv:1901.02860, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from pyfsb.models.unpadded.attention import Bias, attend, longest_row
from pyfsb.models.unpadded.bert import embed
from pyfsb.models.unpadded.documents import Documents
from pyfsb.models.unpadded.layers import choose, run_layers, split_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class _Positions:
    """Relative positions that occur, and their embeddings."""

    embeddings_UH: Tensor
    """Of the buckets that occur."""
    buckets_R: Tensor
    """Row of `embeddings_UH` for each relative position -(T - 1) … T - 1, T the longest length."""


def forward(
    model: Any,
    ids_N: Tensor,
    types_N: Tensor | None,
    documents: Documents,
    places_P: Tensor | None,
    checkpoints: bool,
) -> Tensor:
    """Return the last hidden states."""
    encoder = model.encoder
    positions = _find_positions(encoder, documents) if encoder.relative_attention else None

    def step(layer: Any, hidden_NH: Tensor, places_P: Tensor | None) -> Tensor:
        attended_NH = _attend(layer.attention.self, hidden_NH, documents, positions)
        attended_NH = layer.attention.output(
            choose(attended_NH, places_P), choose(hidden_NH, places_P)
        )
        return layer.output(layer.intermediate(attended_NH), attended_NH)

    embedded_NH = embed(model, ids_N, types_N, documents)
    hidden_NH = run_layers(encoder.layer[:1], step, embedded_NH, checkpoints=checkpoints)
    if encoder.conv is not None:
        hidden_NH = _convolve(encoder.conv, embedded_NH, hidden_NH, documents)
    if len(encoder.layer) == 1:
        return choose(hidden_NH, places_P)
    return run_layers(
        encoder.layer[1:], step, hidden_NH, checkpoints=checkpoints, places_P=places_P
    )


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # kept tensors must serve training too
def find_buckets(
    length: int, num_buckets: int, max_position: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return which rows of the table of relative positions a length needs.

    Args:
        length: Tokens of the longest row.
        num_buckets: Of the logarithmic buckets; 0 or less means that there are none.
        max_position: Relative position where the buckets end.
        device: Of the result.

    Returns:
        Distinct rows of the table [U], and for each relative position -(T - 1) … T - 1 which of
        them it takes, [R].
    """
    relative_R = torch.arange(1 - length, length)
    span = max_position
    if num_buckets > 0:
        span = num_buckets
        relative_R = make_log_bucket_position(relative_R, num_buckets, max_position).long()
    rows_R = torch.clamp(relative_R + span, 0, 2 * span - 1)
    distinct_U, buckets_R = torch.unique(rows_R, return_inverse=True)
    return distinct_U.to(device), buckets_R.to(device)


def _find_positions(encoder: Any, documents: Documents) -> _Positions:
    rows_U, buckets_R = find_buckets(
        longest_row(documents),
        encoder.position_buckets,
        encoder.max_relative_positions,
        documents.device,
    )
    embeddings_UH = encoder.rel_embeddings(rows_U)
    if "layer_norm" in encoder.norm_rel_ebd:
        embeddings_UH = encoder.LayerNorm(embeddings_UH)
    return _Positions(embeddings_UH=embeddings_UH, buckets_R=buckets_R)


def _attend(
    attention: Any, hidden_NH: Tensor, documents: Documents, positions: _Positions | None
) -> Tensor:
    width = attention.attention_head_size
    num_scores = 1 + sum(kind in attention.pos_att_type for kind in ("c2p", "p2c"))
    scale = (width * num_scores) ** -0.5
    bias = None if positions is None else _make_bias(attention, positions, scale)
    return attend(
        split_heads(attention.query_proj(hidden_NH), width),
        split_heads(attention.key_proj(hidden_NH), width),
        split_heads(attention.value_proj(hidden_NH), width),
        documents,
        scale=scale,
        dropout=attention.dropout.p if attention.training else 0.0,
        is_causal=False,
        bias=bias,
    )


def _make_bias(attention: Any, positions: _Positions, scale: float) -> Bias | None:
    """Return what a layer adds to its scores: content to position, position to content."""
    embeddings_UH = attention.pos_dropout(positions.embeddings_UH)

    def project(projection: Any) -> Tensor:
        states_UAD = split_heads(projection(embeddings_UH), attention.attention_head_size)
        # The scale is that of the scores; here it costs least.
        return (states_UAD * scale).index_select(0, positions.buckets_R).permute(1, 2, 0)

    shares = attention.share_att_key
    keys_ADR = queries_ADR = None
    if "c2p" in attention.pos_att_type:
        # Columns from the highest relative position down, as a row's keys come.
        keys_ADR = project(attention.key_proj if shares else attention.pos_key_proj).flip(-1)
    if "p2c" in attention.pos_att_type:
        queries_ADR = project(attention.query_proj if shares else attention.pos_query_proj)

    def bias(query_GATD: Tensor, key_GATD: Tensor) -> Tensor:
        length = query_GATD.shape[-2]
        outside = positions.buckets_R.numel() // 2 + 1 - length
        window = slice(outside, outside + 2 * length - 1)
        scores = []
        if keys_ADR is not None:
            scores.append(_shift(query_GATD @ keys_ADR[..., window]))
        if queries_ADR is not None:
            scores.append(_shift(key_GATD @ queries_ADR[..., window]).transpose(-1, -2))
        return scores[0] if len(scores) == 1 else scores[0] + scores[1]

    return bias if keys_ADR is not None or queries_ADR is not None else None


def _shift(scores_GATR: Tensor) -> Tensor:
    """Return [G, A, T, T] of [G, A, T, 2 T - 1]: entry (i, j) is column T - 1 - i + j of row i."""
    length = scores_GATR.shape[-2]
    if length == 1:
        return scores_GATR
    flat = scores_GATR.flatten(-2)[..., length - 1 : -1]
    return torch.unflatten(flat, -1, (length, 2 * length - 2))[..., :length]


def _convolve(conv: Any, embedded_NH: Tensor, hidden_NH: Tensor, documents: Documents) -> Tensor:
    """Add a convolution of the embeddings to the first layer's states; borders are zeros."""
    margin = conv.conv.padding[0]
    lengths_B = torch.tensor(documents.lengths)
    shifts_N = torch.repeat_interleave(torch.arange(lengths_B.numel()) * margin, lengths_B)
    places_N = (torch.arange(documents.num_tokens) + shifts_N).to(documents.device)
    num_places = documents.num_tokens + margin * (len(documents.lengths) - 1)
    spaced = embedded_NH.new_zeros(num_places, embedded_NH.shape[-1])
    spaced = spaced.index_copy(0, places_N, embedded_NH)
    convolved_NH = conv.conv(spaced.T[None])[0].T.index_select(0, places_N)
    convolved_NH = ACT2FN[conv.conv_act](conv.dropout(convolved_NH))
    return conv.LayerNorm(hidden_NH + convolved_NH)
