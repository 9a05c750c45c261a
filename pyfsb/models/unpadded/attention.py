# SPDX-License-Identifier: Apache-2.0
"""Attention within documents that lie end to end: no padding is computed, none sees another.

On CPUs, neighbours of equal length are one call of scaled_dot_product_attention (documents come
sorted by length). On accelerators one kernel takes all documents; scores with a bias of their own
(T5, DeBERTa) have no such kernel and are padded in groups of about equal length.

Shapes: N tokens of the querying documents, M of the documents they look at, A heads, D width of a
head, G documents of a group, T their (padded) length, S that of the documents looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from pyfsb.models.unpadded.documents import Documents

Bias: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Takes queries [G, A, T, D] and keys [G, A, S, D], returns what is added to the scaled scores,
[G or 1, A, T, S]."""

MAX_FLASH_WIDTH: Final = 256
"""Widest head of the flash kernels."""
_PADDED_MULTIPLE: Final = 64
"""Lengths of padded groups are multiples of it: few groups, and the alignment kernels ask for."""


class Heads(NamedTuple):
    """Queries, and the keys and values that they look at."""

    query_NAD: Tensor
    key_MAD: Tensor
    value_MAD: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who sees whom within a document, and how scores become weights."""

    scale: float
    """Factor of the scores."""
    dropout: float
    """Share of attention weights dropped; 0 outside of training."""
    is_causal: bool
    """True hides the later tokens of the same document."""
    bias: Bias | None
    """Adds to the scores."""
    steps_N: Tensor | None
    """A token sees those of its own and of lower steps; None: no steps."""

    @property
    def has_scores(self) -> bool:
        """Whether something is added to the scores, which kernels for ragged rows cannot do."""
        return self.bias is not None or self.steps_N is not None

    def mask(self, query_GATD: Tensor, key_GASD: Tensor, steps_GT: Tensor | None) -> Tensor | None:
        """Return what is added to the scores of rows, the future of causal ones included."""
        if not self.has_scores:
            return None
        length, key_length = query_GATD.shape[-2], key_GASD.shape[-2]
        if self.bias is None:
            mask = query_GATD.new_zeros(1, 1, length, key_length)
        else:
            mask = self.bias(query_GATD, key_GASD)
        if steps_GT is not None:
            hidden_GTS = steps_GT[:, None, :] > steps_GT[:, :, None]
            mask = mask.masked_fill(hidden_GTS[:, None], float("-inf"))
        if self.is_causal:
            hidden = mask.new_full((length, key_length), float("-inf"))
            mask = mask + hidden.triu(1)
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Neighbouring documents that are computed together."""

    num_documents: int
    query_length: int
    key_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedGroup:
    """Documents of about equal length, padded to the same one."""

    queries_GT: Tensor
    """Where each query lies in N; padding points to the first token."""
    keys_GS: Tensor
    """Where each key lies in M; padding points to the first token."""
    is_key_GS: Tensor
    """True on keys, False on padding."""
    real_N: Tensor
    """Which of the G x T queries are no padding."""


def attend(
    query_NAD: Tensor,
    key_MAD: Tensor,
    value_MAD: Tensor,
    documents: Documents,
    *,
    scale: float,
    dropout: float,
    is_causal: bool,
    keys: Documents | None = None,
    bias: Bias | None = None,
    steps_N: Tensor | None = None,
) -> Tensor:
    """Attend within each document, or from each to its partner.

    Args:
        query_NAD: Queries.
        key_MAD: Keys.
        value_MAD: Values.
        documents: Where the querying documents lie.
        scale: Factor of the scores.
        dropout: Share of attention weights dropped; 0 outside of training.
        is_causal: True hides the later tokens of the same document.
        keys: Where the documents looked at lie; None: the querying ones themselves.
        bias: Adds to the scores.
        steps_N: Within a document, a token sees those of its own and of lower steps; None: all.

    Returns:
        Attended values [N, A x D].
    """
    heads = Heads(query_NAD, key_MAD, value_MAD)
    rule = Rule(scale=scale, dropout=dropout, is_causal=is_causal, bias=bias, steps_N=steps_N)
    others = documents if keys is None else keys
    if calls_by_length(documents.device):
        parts = _attend_groups(heads, group_equal(documents.lengths, others.lengths), rule)
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    if rule.has_scores:
        return attend_padded(heads, documents, others, rule)
    is_half = query_NAD.dtype in (torch.float16, torch.bfloat16)
    if is_half and dropout == 0.0 and query_NAD.shape[-1] <= MAX_FLASH_WIDTH:
        attended_NAD = varlen_attn(
            query_NAD, key_MAD, value_MAD, documents.borders, others.borders,
            documents.max_length, others.max_length,
            scale=scale, window_size=(-1, 0) if is_causal else (-1, -1),
        )  # fmt: skip
        assert isinstance(attended_NAD, Tensor)
        return attended_NAD.flatten(-2)
    return attend_nested(heads, documents, others, rule)


def calls_by_length(device: torch.device) -> bool:
    """Return whether documents of equal length are one call; else one kernel takes all."""
    return device.type == "cpu"


def longest_row(documents: Documents) -> int:
    """Return the length of the longest row that a bias is asked for, padding included."""
    if calls_by_length(documents.device):
        return documents.max_length
    return -(-documents.max_length // _PADDED_MULTIPLE) * _PADDED_MULTIPLE


@lru_cache(maxsize=8)
def group_equal(lengths: tuple[int, ...], key_lengths: tuple[int, ...]) -> tuple[Group, ...]:
    """Return neighbours that are equally long, on both sides."""
    return tuple(
        Group(num_documents=len(list(same)), query_length=query, key_length=key)
        for (query, key), same in groupby(zip(lengths, key_lengths, strict=True))
    )


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # kept tensors must serve training too
def group_padded(
    lengths: tuple[int, ...], key_lengths: tuple[int, ...], device: torch.device
) -> tuple[PaddedGroup, ...]:
    """Return documents of about equal length, on both sides, and where their tokens lie."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, (query, key) in enumerate(zip(lengths, key_lengths, strict=True)):
        groups.setdefault((-(-query // _PADDED_MULTIPLE), -(-key // _PADDED_MULTIPLE)), []).append(
            row
        )
    return tuple(
        _pad_group(lengths, key_lengths, rows, sizes, device) for sizes, rows in groups.items()
    )


def _pad_group(
    lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    rows: list[int],
    multiples: tuple[int, int],
    device: torch.device,
) -> PaddedGroup:
    sides = []
    for side, multiple in zip((lengths, key_lengths), multiples, strict=True):
        every_B = torch.tensor(side)
        rows_G = torch.tensor(rows)
        starts_G1 = (every_B.cumsum(0) - every_B)[rows_G][:, None]
        columns_T = torch.arange(multiple * _PADDED_MULTIPLE)
        is_real_GT = columns_T < every_B[rows_G][:, None]
        sides.append(((starts_G1 + columns_T) * is_real_GT, is_real_GT))
    (queries_GT, is_query_GT), (keys_GS, is_key_GS) = sides
    return PaddedGroup(
        queries_GT=queries_GT.to(device),
        keys_GS=keys_GS.to(device),
        is_key_GS=is_key_GS.to(device),
        real_N=is_query_GT.flatten().nonzero().squeeze(1).to(device),
    )


def attend_nested(heads: Heads, documents: Documents, others: Documents, rule: Rule) -> Tensor:
    """Attend by torch's nested tensors, which choose a kernel for any type, width and dropout."""

    def nest(states_NAD: Tensor, lying: Documents) -> Tensor:
        nested: Tensor = torch.nested.nested_tensor_from_jagged(
            states_NAD, lying.offsets, min_seqlen=1, max_seqlen=lying.max_length
        )
        return nested.transpose(1, 2)

    attended = functional.scaled_dot_product_attention(
        nest(heads.query_NAD, documents), nest(heads.key_MAD, others),
        nest(heads.value_MAD, others),
        dropout_p=rule.dropout, is_causal=rule.is_causal, scale=rule.scale,
    )  # fmt: skip
    attended_NAD: Tensor = attended.transpose(1, 2).values()
    return attended_NAD.flatten(-2)


def attend_padded(heads: Heads, documents: Documents, others: Documents, rule: Rule) -> Tensor:
    """Attend in rows of padded groups; added scores keep ragged kernels away."""

    def attend_rows(rows: Heads, group: PaddedGroup) -> Tensor:
        steps_GT = None if rule.steps_N is None else rule.steps_N[group.queries_GT]
        mask = rule.mask(rows.query_NAD, rows.key_MAD, steps_GT)
        assert mask is not None
        # Finite, so that rows of padding, which may see nothing, stay numbers.
        lowest = torch.finfo(mask.dtype).min
        mask = mask.masked_fill(~group.is_key_GS[:, None, None, :], lowest)
        return functional.scaled_dot_product_attention(
            *rows, mask, dropout_p=rule.dropout, scale=rule.scale
        )

    return in_padded_rows(heads, documents, others, attend_rows)


def in_padded_rows(
    heads: Heads,
    documents: Documents,
    others: Documents,
    attend_rows: Callable[[Heads, PaddedGroup], Tensor],
) -> Tensor:
    """Attend in groups of documents padded to a common multiple.

    Args:
        heads: Queries, keys and values.
        documents: Where the querying documents lie.
        others: Where those looked at lie.
        attend_rows: Takes a group's queries [G, A, T, D], keys and values [G, A, S, D] and what is
            padding in them; returns attended values [G, A, T, D].

    Returns:
        Attended values [N, A x D].
    """
    attended, places = [], []
    for group in group_padded(documents.lengths, others.lengths, documents.device):
        rows = Heads(
            heads.query_NAD[group.queries_GT].transpose(1, 2),
            heads.key_MAD[group.keys_GS].transpose(1, 2),
            heads.value_MAD[group.keys_GS].transpose(1, 2),
        )
        flat_NH = attend_rows(rows, group).transpose(1, 2).flatten(0, 1).flatten(-2)
        attended.append(flat_NH.index_select(0, group.real_N))
        places.append(group.queries_GT.flatten().index_select(0, group.real_N))
    return torch.cat(attended).index_select(0, torch.cat(places).argsort())


def _attend_groups(heads: Heads, groups: tuple[Group, ...], rule: Rule) -> list[Tensor]:
    query_sizes = [group.num_documents * group.query_length for group in groups]
    key_sizes = [group.num_documents * group.key_length for group in groups]
    # One split: the gradients of many slices would each be as large as the whole.
    parts = zip(
        groups,
        torch.split(heads.query_NAD, query_sizes),
        torch.split(heads.key_MAD, key_sizes),
        torch.split(heads.value_MAD, key_sizes),
        [None] * len(groups) if rule.steps_N is None else torch.split(rule.steps_N, query_sizes),
        strict=True,
    )
    attended = []
    for group, query, key, value, steps in parts:
        query_GATD = torch.unflatten(query, 0, (-1, group.query_length)).transpose(1, 2)
        key_GASD = torch.unflatten(key, 0, (-1, group.key_length)).transpose(1, 2)
        value_GASD = torch.unflatten(value, 0, (-1, group.key_length)).transpose(1, 2)
        steps_GT = None if steps is None else torch.unflatten(steps, 0, (-1, group.query_length))
        mask = rule.mask(query_GATD, key_GASD, steps_GT)
        attended_GATD = functional.scaled_dot_product_attention(
            query_GATD, key_GASD, value_GASD, mask,
            dropout_p=rule.dropout, is_causal=rule.is_causal and mask is None, scale=rule.scale,
        )  # fmt: skip
        attended.append(attended_GATD.transpose(1, 2).reshape(query.shape[0], -1))
    return attended
