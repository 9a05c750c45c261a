# SPDX-License-Identifier: Apache-2.0
"""Parts of ZEN: BERT's layers, with absolute (ZEN1) or relative (ZEN2) positions, and its config.

Used by `zen_model`. The names of submodules are those of the published checkpoints. Never makes
masks.

Shapes: B rows, T tokens of a row (or G n-grams of one), A heads, D width of a head, H hidden.

Source: Diao et al. 2020 (ZEN, arXiv:1911.00720), Song et al. 2021 (ZEN 2.0, arXiv:2105.01279), Dai
et al. 2019 (Transformer-XL, arXiv:1901.02860) for the two biases of relative positions; names and
order of modules are those of IDEA-CCNL/Fengshenbang-LM at c8fb7b8.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from pyfsb.errors import ConfigError
from pyfsb.models.architectures.bert_layers import Inner, Output

_SINUSOID_BASE: Final = 10000.0
_MIN_HEAD_WIDTH: Final = 4


class ZenConfig(PreTrainedConfig):
    """What the configs of ZEN1 and ZEN2 share; fields that are not explained are BERT's."""

    has_relative_positions: ClassVar[bool] = False
    """Whether positions enter the attention scores; else the embeddings, of tokens only."""

    vocab_size: int = 21128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    """Longest text in tokens; of ZEN2, whose positions are relative, by custom only."""
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    word_size: int = 104089
    """Rows of the n-gram table, row 0 (padding) included: one more than the highest n-gram id."""
    num_hidden_word_layers: int = 6
    """Layers of the n-gram encoder, beside the first layers of tokens; behind the last one its
    states go on being added in every further layer, as the published weights were trained."""
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True
    legacy_ignored_label: int | None = None
    """A label that losses leave out beside -100; the originals had -1 (ZEN1's pretraining, ZEN2's
    masked language model) and 0 (tagging)."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the sizes.

        Raises:
            ConfigError: Heads do not divide the width, or are too narrow for relative positions.
        """
        super().__post_init__(**kwargs)
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size = {self.hidden_size}, num_attention_heads = "
                f"{self.num_attention_heads}: expected heads that divide the width"
            )
        if self.has_relative_positions and self.head_width < _MIN_HEAD_WIDTH:
            raise ConfigError(
                f"heads of {self.head_width} channels; relative positions need {_MIN_HEAD_WIDTH}"
            )
        if self.word_size < 1:
            raise ConfigError(f"word_size = {self.word_size}: expected 1 (padding) or more")

    @property
    def head_width(self) -> int:
        """Channels of an attention head."""
        return self.hidden_size // self.num_attention_heads


def relative_sinusoids(num_tokens: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return the relative positions of a row's tokens, offsets -T … T - 1, [2 T, D], float32.

    Args:
        num_tokens: Tokens of the row, T.
        width: Channels, at least 4: sines in the first half, cosines in the second; an odd last
            channel is 0.
        device: Where to make it.

    Source:
        tensor2tensor's timing signal: frequencies are 10000^(-k / (D / 2 - 1)).
    """
    half = width // 2
    steps_D = torch.arange(half, device=device, dtype=torch.float32)
    frequencies_D = torch.exp(steps_D * (-math.log(_SINUSOID_BASE) / (half - 1)))
    offsets = torch.arange(-num_tokens, num_tokens, device=device, dtype=torch.float32)
    angles = offsets[:, None] * frequencies_D
    return functional.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, width % 2))


class Embeddings(nn.Module):
    """Tokens or n-grams with their types, and positions of tokens where they are absolute."""

    def __init__(
        self, config: ZenConfig, num_rows: int, *, pad_id: int | None, has_positions: bool
    ) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.word_embeddings = nn.Embedding(num_rows, hidden, padding_idx=pad_id)
        self.position_embeddings = (
            nn.Embedding(config.max_position_embeddings, hidden) if has_positions else None
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, ids_BT: Tensor, type_ids_BT: Tensor | None = None, positions_BT: Tensor | None = None
    ) -> Tensor:
        """Return the embedded tokens, [B, T, H].

        Args:
            ids_BT: Ids.
            type_ids_BT: None is all 0.
            positions_BT: None is 0, 1, 2 …; without effect where positions are relative.

        Raises:
            ConfigError: The rows are longer than there are positions.
        """
        if type_ids_BT is None:
            type_ids_BT = torch.zeros_like(ids_BT)
        embedded = self.word_embeddings(ids_BT) + self.token_type_embeddings(type_ids_BT)
        if self.position_embeddings is not None:
            embedded = embedded + self._positions(ids_BT, positions_BT)
        return self.dropout(self.LayerNorm(embedded))

    def _positions(self, ids_BT: Tensor, positions_BT: Tensor | None) -> Tensor:
        assert self.position_embeddings is not None
        if positions_BT is not None:
            return self.position_embeddings(positions_BT)
        width, limit = ids_BT.shape[-1], self.position_embeddings.num_embeddings
        if width > limit:
            raise ConfigError(f"a text of {width} tokens; the model has {limit} positions")
        return self.position_embeddings.weight[:width]


class SelfAttention(nn.Module):
    """Multi-head attention; with relative positions both biases are its own parameters."""

    def __init__(self, config: ZenConfig) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_attention_heads, config.head_width
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout_ratio = config.attention_probs_dropout_prob
        self.is_relative = config.has_relative_positions
        if self.is_relative:
            # The published names are the reverse of Transformer-XL's: r_r goes with the content.
            self.r_r_bias = nn.Parameter(torch.empty(self.num_heads, self.head_width))
            self.r_w_bias = nn.Parameter(torch.empty(self.num_heads, self.head_width))

    def forward(self, hidden_BTH: Tensor, is_seen_B11T: Tensor | None) -> Tensor:
        """Return attended values, [B, T, H].

        Args:
            hidden_BTH: States.
            is_seen_B11T: False on padding; None: there is none.
        """
        query_BATD = self._split(self.query(hidden_BTH))
        key_BATD, value_BATD = (
            self._split(self.key(hidden_BTH)),
            self._split(self.value(hidden_BTH)),
        )
        added = self._added_scores(query_BATD, is_seen_B11T)
        if self.is_relative:
            query_BATD = query_BATD + self.r_r_bias[:, None]
        attended_BATD = functional.scaled_dot_product_attention(
            query_BATD,
            key_BATD,
            value_BATD,
            attn_mask=None if added is None else added.to(query_BATD.dtype),
            dropout_p=self.dropout_ratio if self.training else 0.0,
        )
        return attended_BATD.transpose(1, 2).flatten(-2)

    def _split(self, states_BTH: Tensor) -> Tensor:
        heads = (*states_BTH.shape[:-1], self.num_heads, self.head_width)
        return states_BTH.view(heads).transpose(1, 2)

    def _added_scores(self, query_BATD: Tensor, is_seen_B11T: Tensor | None) -> Tensor | None:
        """Return what is added to the scaled scores, [B, A, T, T] or broadcast to it."""
        if self.is_relative:
            added = self._position_scores(query_BATD)
        elif is_seen_B11T is None:
            return None
        else:
            added = query_BATD.new_zeros(is_seen_B11T.shape)
        if is_seen_B11T is None:
            return added
        # Finite, so that rows that see nothing stay finite; half, so that no sum overflows.
        return added.masked_fill(~is_seen_B11T, torch.finfo(added.dtype).min / 2)

    def _position_scores(self, query_BATD: Tensor) -> Tensor:
        """Return what the offset of key from query adds to each scaled score, [B, A, T, T]."""
        num_tokens = query_BATD.shape[-2]
        table = relative_sinusoids(num_tokens, self.head_width, query_BATD.device)
        scores = (query_BATD + self.r_w_bias[:, None]) @ table.to(query_BATD.dtype).T
        # Offset k - q stands in column k - q + T, so each row starts one step earlier.
        skewed = scores.flatten(-2)[..., num_tokens:]
        skewed = skewed.view(*scores.shape[:-1], 2 * num_tokens - 1)[..., :num_tokens]
        return skewed * self.head_width**-0.5


class Attention(nn.Module):
    """Self-attention with its output."""

    def __init__(self, config: ZenConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden_size)


class Layer(GradientCheckpointingLayer):
    """One layer of tokens or of n-grams."""

    def __init__(self, config: ZenConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Inner(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, hidden_BTH: Tensor, is_seen_B11T: Tensor | None) -> Tensor:
        """Return the states behind this layer; `is_seen_B11T` as of `SelfAttention`."""
        attended_BTH = self.attention.self(hidden_BTH, is_seen_B11T)
        attended_BTH = self.attention.output(attended_BTH, hidden_BTH)
        return self.output(self.intermediate(attended_BTH), attended_BTH)


class Encoder(nn.Module):
    """Layers of tokens, and beside the first of them layers of n-grams."""

    def __init__(self, config: ZenConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.word_layers = nn.ModuleList(
            [Layer(config) for _ in range(config.num_hidden_word_layers)]
        )
