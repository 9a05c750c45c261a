# SPDX-License-Identifier: Apache-2.0
"""RoPE-Longformer without heads: BERT (norms behind the sums), rotary positions, sliding windows.

`longformer` adds the heads. Names of weights are those of the published checkpoints. Unlike there,
rows keep their length (no padding to whole windows), any even window works, and full mode drops
attention weights in training; real tokens get the same states. Never reads a position table: the
one in the checkpoints has no effect there either.

Shapes: B rows, A heads, T tokens of a row, D width of a head, H hidden.

Source: Beltagy et al. 2020 (arXiv:2004.05150), Su et al. 2021 (arXiv:2104.09864); the order of
modules is that of IDEA-CCNL/Fengshenbang-LM's longformer at c8fb7b8.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pyfsb.errors import ConfigError
from pyfsb.models.architectures.bert_layers import Inner, Output, Pooler
from pyfsb.models.architectures.longformer_attention import attend_fully, attend_in_window
from pyfsb.models.architectures.rotary import RotarySelfAttention, Rotation, rotation_of

GlobalTokens: TypeAlias = Literal["none", "first", "question"]
"""Which tokens are global where no mask says so; the question ends with the first separator."""


class RopeLongformerConfig(PreTrainedConfig):
    """Config of RoPE-Longformer; fields that are not explained are BERT's."""

    model_type = "rope-longformer"

    vocab_size: int = 21128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 4096
    """Longest text in tokens that is prepared for it; the architecture has no limit of its own."""
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    attention_window: list[int] | int = 512
    """Tokens of a layer's window: half of them to each side, even; one for all layers or a list.
    Source: our choice; that of the published checkpoints is not known."""
    use_sparse_attention: bool = True
    """False lets every token attend to all: no windows, no global tokens."""
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    sep_token_id: int | None = None
    """Ends a question; None takes eos_token_id."""
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the windows.

        Raises:
            ConfigError: They are not even, or not one for each layer.
        """
        super().__post_init__(**kwargs)
        windows = self.attention_window
        if isinstance(windows, list) and len(windows) != self.num_hidden_layers:
            raise ConfigError(
                f"attention_window has {len(windows)} windows; expected one number, or one for "
                f"each of the {self.num_hidden_layers} layers"
            )
        for window in windows if isinstance(windows, list) else [windows]:
            if window < 2 or window % 2:
                raise ConfigError(f"attention_window = {window}: expected an even number, from 2")

    @property
    def reaches(self) -> list[int | None]:
        """Tokens that each layer sees to each side; None: all."""
        windows = self.attention_window
        if not self.use_sparse_attention:
            return [None] * self.num_hidden_layers
        if isinstance(windows, int):
            windows = [windows] * self.num_hidden_layers
        return [window // 2 for window in windows]


class Embeddings(nn.Module):
    """Tokens and token types; positions come in by rotation."""

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, hidden, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the embedded tokens, of any leading shape."""
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        embedded = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(embedded))


class Attention(nn.Module):
    """Self-attention with its output."""

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__()
        self.self = RotarySelfAttention(config)
        self.output = Output(config, config.hidden_size)


class Layer(GradientCheckpointingLayer):
    """One layer; `reach` is what its window shows to each side, None for all."""

    def __init__(self, config: RopeLongformerConfig, reach: int | None) -> None:
        super().__init__()
        self.reach = reach
        self.attention = Attention(config)
        self.intermediate = Inner(config)
        self.output = Output(config, config.intermediate_size)

    def forward(
        self,
        hidden_BTH: Tensor,
        rotation: Rotation,
        is_real_BT: Tensor | None,
        is_global_BT: Tensor | None,
    ) -> Tensor:
        """Return the states behind this layer."""
        part = self.attention.self
        query, key, value = (
            states.transpose(-2, -3) for states in part.project(hidden_BTH, rotation)
        )
        attended_BATD = self.attend(query, key, value, is_real_BT, is_global_BT)
        attended_BTH = self.attention.output(
            attended_BATD.transpose(-2, -3).flatten(-2), hidden_BTH
        )
        return self.output(self.intermediate(attended_BTH), attended_BTH)

    def attend(
        self,
        query_BATD: Tensor,
        key_BATD: Tensor,
        value_BATD: Tensor,
        is_real_BT: Tensor | None,
        is_global_BT: Tensor | None,
    ) -> Tensor:
        """Return attended values [B, A, T, D], of this layer's window or of all."""
        states, dropout = (query_BATD, key_BATD, value_BATD), self.attention.self.active_dropout
        if self.reach is None:
            return attend_fully(*states, is_real_BT=is_real_BT, dropout=dropout)
        return attend_in_window(
            *states, reach=self.reach, is_real_BT=is_real_BT, is_global_BT=is_global_BT,
            dropout=dropout,
        )  # fmt: skip


class Encoder(nn.Module):
    """All layers."""

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(config, reach) for reach in config.reaches])


class RopeLongformerPreTrainedModel(PreTrainedModel):
    """What the model and its heads share."""

    config_class = RopeLongformerConfig
    base_model_prefix = "longformer"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Layer"]


class RopeLongformerModel(RopeLongformerPreTrainedModel):
    """RoPE-Longformer without a head."""

    def __init__(
        self,
        config: RopeLongformerConfig,
        *,
        add_pooling_layer: bool = True,
        global_tokens: GlobalTokens = "none",
    ) -> None:
        """Build it.

        Args:
            config: Sizes and windows.
            add_pooling_layer: Whether there is a dense layer on the first token.
            global_tokens: Which tokens are global where no mask is given.
        """
        super().__init__(config)
        self.global_tokens = global_tokens
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of tokens."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding of tokens."""
        self.embeddings.word_embeddings = value

    def find_global(self, input_ids_BT: Tensor) -> Tensor | None:
        """Return which tokens of rows are global by the head's rule, [B, T]; None: none are."""
        if self.global_tokens == "none" or not self.config.use_sparse_attention:
            return None
        is_first_BT = torch.zeros_like(input_ids_BT, dtype=torch.bool)
        is_first_BT[:, 0] = True
        if self.global_tokens == "first":
            return is_first_BT
        end_id = self.config.sep_token_id
        end_id = self.config.eos_token_id if end_id is None else end_id
        is_end_BT = (input_ids_BT == end_id).long()
        is_question_BT = is_end_BT.cumsum(-1) == is_end_BT
        return torch.where(is_end_BT.any(-1, keepdim=True), is_question_BT, is_first_BT)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """Return the states of padded rows.

        Args:
            input_ids: Ids, [B, T].
            attention_mask: 1 on tokens, 0 on padding, [B, T]; None: there is no padding.
            token_type_ids: [B, T]; None: all 0.
            global_attention_mask: 1 on tokens that see all and are seen by all, [B, T]. None
                leaves it to the head. Without effect in full mode.
            output_hidden_states: Whether to return the states before and behind each layer.
            **_: Switches of `transformers` that have no meaning here.
        """
        rotation = rotation_of(
            torch.arange(input_ids.shape[-1], device=input_ids.device),
            self.config.hidden_size // self.config.num_attention_heads,
        )
        is_real = None if attention_mask is None else attention_mask.bool()
        if global_attention_mask is None:
            is_global = self.find_global(input_ids)
        else:
            is_global = global_attention_mask.bool()
        hidden_BTH = self.embeddings(input_ids, token_type_ids)
        every = [hidden_BTH]
        for layer in self.encoder.layer:
            hidden_BTH = layer(hidden_BTH, rotation, is_real, is_global)
            every.append(hidden_BTH)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_BTH,
            pooler_output=None if self.pooler is None else self.pooler(hidden_BTH),
            hidden_states=tuple(every) if output_hidden_states else None,
        )
