# SPDX-License-Identifier: Apache-2.0
"""The sides of MegatronT5: its config, layers, encoder and decoder.

Used by `pyfsb.models.architectures.megatron_t5`, which joins them to models. Never reads a file.

Shapes: B rows, T tokens of a row, S tokens of the other side, H hidden.

Source: IDEA-CCNL/Fengshenbang-LM c8fb7b8, fengshen/models/megatron_t5 (facts and formats); weights
start from N(0, 0.02), our choice: the original cannot be constructed with its own default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import can_return_tuple

_ACTIVATIONS: Final = ("gelu", "gelu_new", "relu")


class MegatronT5Config(PreTrainedConfig):
    """Shape of a MegatronT5; the published names (`d_model`, `num_layers` …) are understood too."""

    model_type = "megatron-t5"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "d_model": "hidden_size",
        "d_kv": "head_dim",
        "d_ff": "intermediate_size",
        "num_layers": "num_hidden_layers",
        "num_decoder_layers": "decoder_layers",
        "num_heads": "num_attention_heads",
        "feed_forward_proj": "hidden_act",
        "layer_norm_epsilon": "layer_norm_eps",
    }

    vocab_size: int = 21248
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    """Layers of the encoder."""
    decoder_layers: int | None = None
    """Layers of the decoder; None: as many as the encoder has."""
    num_attention_heads: int = 16
    head_dim: int | None = None
    """Width of a head; None: `hidden_size / num_attention_heads`."""
    intermediate_size: int = 4096
    hidden_act: str = "gelu"
    """Of the feed-forward layers: gelu (erf), gelu_new (tanh) or relu; there is no gated form."""
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 1
    decoder_start_token_id: int | None = 0
    legacy_cached_positions: bool = False
    """True: every call of the decoder counts its positions from 0, also after a cache, as the
    original does; its answers then depend on how they were computed."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Take the published names and fill in what follows from others."""
        dropout = kwargs.pop("dropout_rate", None)
        if dropout is not None:
            self.hidden_dropout_prob = self.attention_probs_dropout_prob = dropout
        super().__post_init__(**kwargs)
        if self.decoder_layers is None:
            self.decoder_layers = self.num_hidden_layers


def check_config(config: MegatronT5Config) -> None:
    """Refuse a shape that no module can be built from.

    Raises:
        ValueError: Names the field, its value and what would be right.
    """
    if config.hidden_act not in _ACTIVATIONS:
        raise ValueError(
            f"hidden_act (feed_forward_proj) = {config.hidden_act!r}: expected "
            f"{', '.join(_ACTIVATIONS)}; this architecture has no gated feed-forward layer"
        )
    if config.head_dim is None and config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size = {config.hidden_size} is not divisible by num_attention_heads = "
            f"{config.num_attention_heads}; change one or give head_dim"
        )


class MegatronT5Embeddings(nn.Module):
    """Words plus positions; one of it serves both sides."""

    def __init__(self, config: MegatronT5Config) -> None:
        """Build both tables."""
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids_BT: Tensor, first_position: int) -> Tensor:
        """Return the embeddings of tokens whose first one stands at a position, [B, T, H].

        Raises:
            ValueError: The text is longer than the table of positions.
        """
        last = first_position + input_ids_BT.shape[1]
        if last > self.position_embeddings.num_embeddings:
            raise ValueError(
                f"{last} tokens are longer than the model's "
                f"{self.position_embeddings.num_embeddings} positions"
            )
        positions_T = torch.arange(first_position, last, device=input_ids_BT.device)
        return self.word_embeddings(input_ids_BT) + self.position_embeddings(positions_T)


class MegatronT5Attention(nn.Module):
    """Scaled dot-product attention, to the own side or to the encoder."""

    def __init__(self, config: MegatronT5Config, *, layer: int, is_causal: bool = False) -> None:
        """Build the projections of one layer."""
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
        width = self.head_dim * config.num_attention_heads
        self.q = nn.Linear(config.hidden_size, width)
        self.k = nn.Linear(config.hidden_size, width)
        self.v = nn.Linear(config.hidden_size, width)
        self.o = nn.Linear(width, config.hidden_size)
        self.is_causal = is_causal
        self._layer = layer
        self._dropout = config.attention_probs_dropout_prob

    def forward(
        self,
        hidden_BTH: Tensor,
        mask: Tensor | None,
        *,
        source_BSH: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            hidden_BTH: The tokens that ask.
            mask: As transformers' attention functions take it.
            source_BSH: What the encoder gave; None: the tokens look at their own side.
            cache: Keys and values of earlier calls; this call's are added.
        """
        query = self._split(self.q(hidden_BTH))
        if source_BSH is None:
            key, value = self._split(self.k(hidden_BTH)), self._split(self.v(hidden_BTH))
            if cache is not None:
                own = cache.self_attention_cache if _is_pair(cache) else cache
                key, value = own.update(key, value, self._layer)
        else:
            key, value = self._source(source_BSH, cache)
        attend: Callable[..., tuple[Tensor, Any]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, sdpa_attention_forward
        )
        context = attend(
            self,
            query,
            key,
            value,
            mask,
            dropout=self._dropout if self.training else 0.0,
            scaling=self.head_dim**-0.5,
        )[0]
        return self.o(context.flatten(2))

    def _source(self, source_BSH: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Return keys and values of the encoder's states, computed once an answer."""
        if cache is not None and _is_pair(cache) and cache.is_updated.get(self._layer):
            kept = cache.cross_attention_cache.layers[self._layer]
            return kept.keys, kept.values
        key, value = self._split(self.k(source_BSH)), self._split(self.v(source_BSH))
        if cache is not None and _is_pair(cache):
            key, value = cache.cross_attention_cache.update(key, value, self._layer)
            cache.is_updated[self._layer] = True
        return key, value

    def _split(self, states_BTH: Tensor) -> Tensor:
        """View as [B, heads, T, width of a head]."""
        return states_BTH.view(*states_BTH.shape[:-1], -1, self.head_dim).transpose(1, 2)


class MegatronT5FeedForward(nn.Module):
    """Two projections with an activation between them."""

    def __init__(self, config: MegatronT5Config) -> None:
        """Build both."""
        super().__init__()
        self.wi = nn.Linear(config.hidden_size, config.intermediate_size)
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self._act = ACT2FN[config.hidden_act]
        self._dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return states of the same shape."""
        return self.wo(self._dropout(self._act(self.wi(hidden_BTH))))


class MegatronT5Layer(GradientCheckpointingLayer):
    """Self-attention, in the decoder attention to the encoder, feed-forward; each pre-LN."""

    def __init__(self, config: MegatronT5Config, *, layer: int, is_decoder: bool) -> None:
        """Build one layer of one side."""
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attention_norm = nn.LayerNorm(width, eps)
        self.self_attention = MegatronT5Attention(config, layer=layer, is_causal=is_decoder)
        if is_decoder:
            self.cross_attention_norm = nn.LayerNorm(width, eps)
            self.cross_attention = MegatronT5Attention(config, layer=layer)
        self.feed_forward_norm = nn.LayerNorm(width, eps)
        self.feed_forward = MegatronT5FeedForward(config)
        self._dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_BTH: Tensor,
        mask: Tensor | None = None,
        source_BSH: Tensor | None = None,
        source_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Return the states after this layer, [B, T, H]."""
        attended_BTH = self.self_attention(
            self.self_attention_norm(hidden_BTH), mask, cache=past_key_values
        )
        hidden_BTH = hidden_BTH + self._dropout(attended_BTH)
        if source_BSH is not None:
            attended_BTH = self.cross_attention(
                self.cross_attention_norm(hidden_BTH),
                source_mask,
                source_BSH=source_BSH,
                cache=past_key_values,
            )
            hidden_BTH = hidden_BTH + self._dropout(attended_BTH)
        fed_BTH = self.feed_forward(self.feed_forward_norm(hidden_BTH))
        return hidden_BTH + self._dropout(fed_BTH)


class MegatronT5Stack(nn.Module):
    """One side: embeddings, layers, a last norm."""

    def __init__(
        self, config: MegatronT5Config, embeddings: MegatronT5Embeddings, *, is_decoder: bool
    ) -> None:
        """Build the layers around embeddings that both sides share."""
        super().__init__()
        self.config = config
        self.embeddings = embeddings
        num_layers = config.decoder_layers if is_decoder else config.num_hidden_layers
        self.layers = nn.ModuleList(
            MegatronT5Layer(config, layer=number, is_decoder=is_decoder)
            for number in range(num_layers or 0)
        )
        self.final_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self._dropout = nn.Dropout(config.hidden_dropout_prob)

    def run(
        self,
        hidden_BTH: Tensor,
        mask: Tensor | None,
        *others: Tensor | None,
        cache: Cache | None = None,
        keeps_states: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Send embeddings through the layers; also return all states if they are kept."""
        hidden_BTH = self._dropout(hidden_BTH)
        states: list[Tensor] = []
        for layer in self.layers:
            states.append(hidden_BTH)
            hidden_BTH = layer(hidden_BTH, mask, *others, past_key_values=cache)
        hidden_BTH = self._dropout(self.final_norm(hidden_BTH))
        return hidden_BTH, (*states, hidden_BTH) if keeps_states else None


class MegatronT5Encoder(MegatronT5Stack):
    """The side that reads."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_settings: Any,
    ) -> BaseModelOutput:
        """Return the states of a text; the mask is 1 on tokens, [B, S].

        `generate` hands all of its output settings to an encoder.
        """
        embedded_BSH = self.embeddings(input_ids, 0)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=embedded_BSH, attention_mask=attention_mask
        )
        last, states = self.run(embedded_BSH, mask, keeps_states=bool(output_hidden_states))
        return BaseModelOutput(last_hidden_state=last, hidden_states=states)


class MegatronT5Decoder(MegatronT5Stack):
    """The side that writes."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Return the states of an answer.

        Args:
            input_ids: Ids, [B, T]; after a cache only the new ones.
            attention_mask: 1 on tokens, those in the cache included.
            encoder_hidden_states: States of the text, [B, S, H].
            encoder_attention_mask: 1 on its tokens.
            past_key_values: Keys and values of earlier calls; grows.
            use_cache: Make one if there is none; None: only outside of training.
            output_hidden_states: Return the states of all layers too.

        Raises:
            ValueError: There are no states of a text, or the answer is longer than the positions.
        """
        if encoder_hidden_states is None:
            raise ValueError("the decoder needs encoder_hidden_states: run the encoder first")
        config = self.config
        if use_cache is None:
            use_cache = config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(
                DynamicCache(config=config), DynamicCache(config=config)
            )
        embedded_BTH, mask = self._begin(input_ids, attention_mask, past_key_values)
        source_mask = create_bidirectional_mask(
            config=config,
            inputs_embeds=embedded_BTH,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        last, states = self.run(
            embedded_BTH,
            mask,
            encoder_hidden_states,
            source_mask,
            cache=past_key_values,
            keeps_states=bool(output_hidden_states),
        )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=last, past_key_values=past_key_values, hidden_states=states
        )

    def _begin(
        self, ids_BT: Tensor, attention_mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the embeddings of new tokens and what they see of their own side."""
        own = cache.self_attention_cache if cache is not None and _is_pair(cache) else cache
        past = 0
        if own is not None and not self.config.legacy_cached_positions:
            past = int(own.get_seq_length())
        embedded_BTH = self.embeddings(ids_BT, past)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embedded_BTH,
            attention_mask=attention_mask,
            past_key_values=own,
        )
        return embedded_BTH, mask


def _is_pair(cache: Cache) -> bool:
    return isinstance(cache, EncoderDecoderCache)
