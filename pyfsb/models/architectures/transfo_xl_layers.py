# SPDX-License-Identifier: Apache-2.0
"""The layers of the Transformer-XL denoiser, and its config.

Used by `pyfsb.models.architectures.transfo_xl`, which joins them to models. Never reads a file.

Shapes: B rows, T tokens of a row, K keys (memory, then the row), A heads, D width of a head,
H hidden.

Source: IDEA-CCNL/Fengshenbang-LM c8fb7b8, fengshen/models/transfo_xl_denoise (facts and formats);
Transformer-XL (Dai et al. 2019), section 3.3 and appendix B, for relative attention.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

_BASE: Final = 10000.0
"""Of the wave lengths of the position code."""


class TransfoXLDenoiseConfig(PreTrainedConfig):
    """Shape of a denoiser; the published names (`num_layers` …) are understood too."""

    model_type = "transfo-xl-denoise"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "num_layers": "num_hidden_layers",
        "max_sequence_length": "max_position_embeddings",
        "output_dropout_prob": "hidden_dropout_prob",
    }

    vocab_size: int = 50048
    hidden_size: int = 1600
    num_hidden_layers: int = 32
    num_attention_heads: int = 25
    intermediate_size: int | None = None
    """Width of the feed-forward layers; None: four times `hidden_size`."""
    max_position_embeddings: int = 512
    """Tokens of a training text; without relative encoding also the limit of every text."""
    max_memory_length: int = 512
    """Earlier tokens that a token sees, in its own text or in the memory of those before."""
    relative_encoding: bool = True
    """False: learned absolute positions are added to the words instead."""
    embedding_dropout_prob: float = 0.1
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.0
    """The published `attention_dropout_prob` is not taken over: the original never applied it."""
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 50000
    legacy_segment_band: bool = False
    """True: a text of n > 1 tokens sees n keys a token, memory included, whatever
    `max_memory_length` says; so the original trained and reads its prompts. What a token sees then
    depends on how its text was cut into segments."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Take the published names, leave out those of settings without an effect."""
        for name in (
            "attention_dropout_prob", "checkpoint_activations", "checkpoint_num_layers",
            "parallel_output",
        ):  # fmt: skip
            kwargs.pop(name, None)
        super().__post_init__(**kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size

    @property
    def sliding_window(self) -> int:
        """Keys that a token sees, itself included; caches of transformers keep one less."""
        return self.max_memory_length + 1


def check_config(config: TransfoXLDenoiseConfig) -> None:
    """Refuse a shape that no module can be built from.

    Raises:
        ValueError: Names the field, its value and what would be right.
    """
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size = {config.hidden_size} is not divisible by num_attention_heads = "
            f"{config.num_attention_heads}"
        )
    if config.relative_encoding and config.hidden_size % 2:
        raise ValueError(
            f"hidden_size = {config.hidden_size}: the position code has a sine and a cosine for "
            "each wave; expected an even width"
        )
    if config.max_memory_length < 1:
        raise ValueError(f"max_memory_length = {config.max_memory_length}: expected 1 or more")


def distance_code(num_keys: int, width: int, device: torch.device) -> Tensor:
    """Return the sinusoidal code of the distances num_keys-1 … 0, [K, H], float32."""
    distances_K = torch.arange(num_keys - 1, -1, -1, device=device, dtype=torch.float32)
    waves = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angles = distances_K[:, None] / _BASE**waves
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def shift_to_keys(scores_BATK: Tensor) -> Tensor:
    """Turn scores by distance (farthest first) into scores by key.

    Row t of T has its key at distance 0 in column K-T+t; what stands right of it is not defined.

    Source: Transformer-XL, appendix B (one pad column, another view).
    """
    *batch, num_rows, num_keys = scores_BATK.shape
    padded = functional.pad(scores_BATK, (1, 0)).view(*batch, num_keys + 1, num_rows)
    return padded[..., 1:, :].reshape(*batch, num_rows, num_keys)


class ResidualLinear(nn.Linear):
    """The last projection of a branch; what it gives is added to the stream between layers."""


class TransfoXLAttention(nn.Module):
    """Attention to the memory and the text, by content and by distance."""

    def __init__(self, config: TransfoXLDenoiseConfig, *, layer: int) -> None:
        """Build the projections of one layer."""
        super().__init__()
        width = config.hidden_size
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = ResidualLinear(width, width)
        self.relative = nn.Linear(width, width) if config.relative_encoding else None
        self._head_dim = width // config.num_attention_heads
        self._dropout = config.attention_probs_dropout_prob
        self._layer = layer

    def forward(
        self,
        hidden_BTH: Tensor,
        hidden_B1TK: Tensor,
        code_KH: Tensor | None,
        content_bias_AD: Tensor | None,
        distance_bias_AD: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """Attend.

        Args:
            hidden_BTH: The tokens.
            hidden_B1TK: True where a token must not look, [B or 1, 1, T, K].
            code_KH: Code of the distances, farthest first; None: positions are in the words.
            content_bias_AD: Added to queries that meet contents; one for all layers.
            distance_bias_AD: Added to queries that meet distances; one for all layers.
            cache: The memory; this call's keys and values are added.
        """
        query, key, value = map(self._split, self.query_key_value(hidden_BTH).chunk(3, dim=-1))
        if cache is not None:
            key, value = cache.update(key, value, self._layer)
        scale = 1 / math.sqrt(self._head_dim)
        bias = torch.zeros((), dtype=query.dtype, device=query.device)
        if self.relative is not None and code_KH is not None:
            assert content_bias_AD is not None
            assert distance_bias_AD is not None
            code = self._split(self.relative(code_KH)[None])
            by_distance = (query + distance_bias_AD[:, None]) @ code.transpose(-1, -2)
            bias = shift_to_keys(by_distance) * scale
            query = query + content_bias_AD[:, None]
        # Finite, and far from overflow in half precision: a row of padding that sees nothing looks
        # at everything evenly and stays a number; nothing that counts looks at it.
        bias = bias.masked_fill(hidden_B1TK, torch.finfo(query.dtype).min / 2)
        context = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.expand(*query.shape[:-1], key.shape[-2]),
            dropout_p=self._dropout if self.training else 0.0,
            scale=scale,
        )
        return self.dense(context.transpose(1, 2).flatten(2))

    def _split(self, states_BTH: Tensor) -> Tensor:
        """View as [B, A, T, D]."""
        return states_BTH.view(*states_BTH.shape[:-1], -1, self._head_dim).transpose(1, 2)


class TransfoXLFeedForward(nn.Module):
    """Two projections with tanh-GELU between them."""

    def __init__(self, config: TransfoXLDenoiseConfig) -> None:
        """Build both."""
        super().__init__()
        inner = config.intermediate_size or 4 * config.hidden_size
        self.dense_h_to_4h = nn.Linear(config.hidden_size, inner)
        self.dense_4h_to_h = ResidualLinear(inner, config.hidden_size)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return states of the same shape."""
        return self.dense_4h_to_h(
            functional.gelu(self.dense_h_to_4h(hidden_BTH), approximate="tanh")
        )


class TransfoXLLayer(GradientCheckpointingLayer):
    """Attention, then feed-forward; each pre-LN."""

    def __init__(self, config: TransfoXLDenoiseConfig, *, layer: int) -> None:
        """Build one layer."""
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = TransfoXLAttention(config, layer=layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = TransfoXLFeedForward(config)
        self._dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_BTH: Tensor, *context: Tensor | None, past_key_values: Cache | None = None
    ) -> Tensor:
        """Return the states after this layer, [B, T, H]; the context is what attention takes."""
        attended_BTH = self.attention(self.input_layernorm(hidden_BTH), *context, past_key_values)
        hidden_BTH = hidden_BTH + self._dropout(attended_BTH)
        return hidden_BTH + self._dropout(self.mlp(self.post_attention_layernorm(hidden_BTH)))
