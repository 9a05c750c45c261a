# SPDX-License-Identifier: Apache-2.0
"""Zhouwenwang-Unified without heads: MegatronBert (norms first) with rotary positions.

Token types say who sees whom: a run of zeros sees itself and what stands before, a one sees no
later token; so one network masks, continues and rewrites. `zhouwenwang` adds the heads. Names of
weights are those of the published checkpoints. Never makes token types of a text.

Shapes: B rows, A heads, T tokens of a row, S tokens with those of the cache, D width of a head,
H hidden.

Source: Dong et al. 2019 (UniLM, arXiv:1905.03197), section 2.2; Su et al. 2021 (arXiv:2104.09864);
the order of modules is that of IDEA-CCNL/Fengshenbang-LM's roformer, at 98d3988 for the mask.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from pyfsb.errors import ConfigError, DataError
from pyfsb.models.architectures.bert_layers import Inner, Pooler
from pyfsb.models.architectures.rotary import RotarySelfAttention, Rotation, rotation_of


class ZhouwenwangConfig(PreTrainedConfig):
    """Config of Zhouwenwang-Unified; fields that are not explained are MegatronBert's."""

    model_type = "zhouwenwang"

    vocab_size: int = 21128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    """Longest text in tokens that is prepared for it; the architecture has no limit of its own."""
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    use_cache: bool = True
    tie_word_embeddings: bool = True
    prompt_token_type: Literal[0, 1] = 1
    """Type of prompts that `generate` gets without types. 1, as published, reads them from left to
    right; 0 reads them both ways, for models trained on prefixes."""
    legacy_additive_mask: bool = False
    """True adds 1 to forbidden scores, as the original does since 2022: that forbids nothing, lets
    padding in and leaves nothing to cache. For weights that were trained with that code."""


def forbid(token_type_ids_BT: Tensor, is_real_BS: Tensor | None, num_cached: int = 0) -> Tensor:
    """Return True where a token may not look, [B, T, S].

    Args:
        token_type_ids_BT: Types of the querying tokens. Each 1 opens a step that earlier tokens
            do not see; a 0 belongs to the step before it.
        is_real_BS: False on padding, of the cached tokens too; None: there is none.
        num_cached: Tokens before them that are all seen.
    """
    steps_BT = token_type_ids_BT.cumsum(-1)
    forbidden_BTS = steps_BT[:, None, :] > steps_BT[:, :, None]
    forbidden_BTS = functional.pad(forbidden_BTS, (num_cached, 0))
    if is_real_BS is None:
        return forbidden_BTS
    is_real_BT = is_real_BS[:, num_cached:]
    return forbidden_BTS | ~(is_real_BS[:, None, :] & is_real_BT[:, :, None])


class Embeddings(nn.Module):
    """Tokens and token types, no norm; positions come in by rotation."""

    def __init__(self, config: ZhouwenwangConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, hidden, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, hidden)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the embedded tokens, of any leading shape."""
        embedded = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(embedded)


class Output(nn.Module):
    """The end of a half layer: dense, dropout, sum."""

    def __init__(self, config: ZhouwenwangConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, changed_BTH: Tensor, hidden_BTH: Tensor) -> Tensor:
        """Return the sum of both."""
        return hidden_BTH + self.dropout(self.dense(changed_BTH))


class Attention(nn.Module):
    """Norm, self-attention and its output."""

    def __init__(self, config: ZhouwenwangConfig) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self = RotarySelfAttention(config)
        self.output = Output(config, config.hidden_size)


class Layer(GradientCheckpointingLayer):
    """One layer."""

    def __init__(self, config: ZhouwenwangConfig, number: int) -> None:
        super().__init__()
        self.number = number
        self.attention = Attention(config)
        self.ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = Inner(config)
        self.output = Output(config, config.intermediate_size)

    def forward(
        self,
        hidden_BTH: Tensor,
        rotation: Rotation,
        bias_B1TS: Tensor | None,
        *,
        is_causal: bool = False,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return the states behind this layer; keys and values go into the cache."""
        part = self.attention.self
        query, key, value = (
            states.transpose(1, 2)
            for states in part.project(self.attention.ln(hidden_BTH), rotation)
        )
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.number)
        attended_BATD = functional.scaled_dot_product_attention(
            query, key, value, bias_B1TS, dropout_p=part.active_dropout, is_causal=is_causal
        )
        hidden_BTH = self.attention.output(attended_BATD.transpose(1, 2).flatten(-2), hidden_BTH)
        return self.output(self.intermediate(self.ln(hidden_BTH)), hidden_BTH)


class Encoder(nn.Module):
    """All layers and the norm behind them."""

    def __init__(self, config: ZhouwenwangConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            [Layer(config, number) for number in range(config.num_hidden_layers)]
        )
        self.ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class ZhouwenwangPreTrainedModel(PreTrainedModel):
    """What the model and its heads share."""

    config_class = ZhouwenwangConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Layer"]


class ZhouwenwangModel(ZhouwenwangPreTrainedModel):
    """Zhouwenwang-Unified without a head."""

    def __init__(
        self,
        config: ZhouwenwangConfig,
        *,
        add_pooling_layer: bool = True,
        default_token_type: Literal[0, 1] = 0,
        ignores_token_types: bool = False,
    ) -> None:
        """Build it.

        Args:
            config: Sizes.
            add_pooling_layer: Whether there is a dense layer on the first token.
            default_token_type: Of tokens that come without: 0 sees all, 1 what stands before.
            ignores_token_types: Whether all types are 0 whatever comes in: for heads that
                understand texts, whose pairs would else hide their second text from the first.
        """
        super().__init__(config)
        self.default_token_type = default_token_type
        self.ignores_token_types = ignores_token_types
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

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Return the states of padded rows.

        Args:
            input_ids: Ids, [B, T].
            attention_mask: 1 on tokens, 0 on padding, [B, S]; None: there is no padding.
            token_type_ids: Who sees whom (`forbid`), [B, T]; None: the head's default, and 1
                behind cached tokens.
            past_key_values: Keys and values of the tokens before these.
            use_cache: Whether to keep keys and values.
            output_hidden_states: Whether to return the states before each layer and the last.
            **_: Switches of `transformers` that have no meaning here.

        Raises:
            DataError: A token of type 0 follows cached ones, which ought to have seen it.
            ConfigError: A cache with the legacy mask, under which all tokens see later ones.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if past_key_values is not None and self.config.legacy_additive_mask:
            raise ConfigError(
                "legacy_additive_mask = true: earlier tokens see later ones, so their keys cannot "
                "be kept; expected use_cache = false"
            )
        num_cached = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        types_BT = self._types_of(token_type_ids, num_cached)
        bias_B1TS, is_causal = self._mask(types_BT, attention_mask, input_ids, num_cached)
        if types_BT is None:
            types_BT = torch.full_like(input_ids, 1 if num_cached else self.default_token_type)
        rotation = rotation_of(
            torch.arange(num_cached, num_cached + input_ids.shape[1], device=input_ids.device),
            self.config.hidden_size // self.config.num_attention_heads,
        )
        hidden_BTH = self.embeddings(input_ids, types_BT)
        every = []
        for layer in self.encoder.layer:
            every.append(hidden_BTH)
            hidden_BTH = layer(
                hidden_BTH, rotation, bias_B1TS,
                is_causal=is_causal, past_key_values=past_key_values,
            )  # fmt: skip
        hidden_BTH = self.encoder.ln(hidden_BTH)
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden_BTH,
            pooler_output=None if self.pooler is None else self.pooler(hidden_BTH),
            past_key_values=past_key_values,
            hidden_states=(*every, hidden_BTH) if output_hidden_states else None,
        )

    def _types_of(self, token_type_ids_BT: Tensor | None, num_cached: int) -> Tensor | None:
        """Return the types that count; None: all are the default, or 1 behind cached tokens."""
        if token_type_ids_BT is None or self.ignores_token_types:
            return None
        if num_cached and bool((token_type_ids_BT[:, 0] < 1).any()):
            raise DataError(
                "token type 0 behind cached tokens: they would have seen it; expected type 1, or "
                "no cache"
            )
        return token_type_ids_BT

    def _mask(
        self,
        types_BT: Tensor | None,
        attention_mask_BS: Tensor | None,
        input_ids_BT: Tensor,
        num_cached: int,
    ) -> tuple[Tensor | None, bool]:
        """Return what is added to the scores, [B, 1, T, S], or whether to attend causally."""
        length = input_ids_BT.shape[1]
        default = 1 if num_cached else self.default_token_type
        if types_BT is None and attention_mask_BS is None:
            if default == 0 or length == 1:
                return None, False
            if not num_cached and not self.config.legacy_additive_mask:
                return None, True
        if types_BT is None:
            types_BT = torch.full_like(input_ids_BT, default)
        is_real_BS = None if attention_mask_BS is None else attention_mask_BS.bool()
        forbidden_BTS = forbid(types_BT, is_real_BS, num_cached)
        # What queries will be: a mask that is cast later would become infinite.
        kind = input_ids_BT.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype
        # Finite: a row that may see nothing (padding) attends evenly, as the original's does.
        penalty = 1.0 if self.config.legacy_additive_mask else torch.finfo(dtype).min / 2
        bias_BTS = torch.zeros_like(forbidden_BTS, dtype=dtype)
        return bias_BTS.masked_fill(forbidden_BTS, penalty)[:, None], False
