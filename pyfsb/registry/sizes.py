# SPDX-License-Identifier: Apache-2.0
"""A tiny size of every architecture, for checks and tests: two layers, a few 100,000 parameters.

Only sizes are given; what makes an architecture what it is (relative positions, shared keys, gates,
n-gram layers, the two towers) stays that of the entry. Read by `fsb models check`; builds nothing.
"""

from __future__ import annotations

from typing import Final

from pyfsb.registry.entry import Architecture, ConfigValue, ModelEntry

MAX_TOKENS: Final = 128
"""Positions of every tiny size."""

_ENCODER: Final[dict[str, ConfigValue]] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": MAX_TOKENS,
}
_T5: Final[dict[str, ConfigValue]] = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 32,
}
_BART: Final[dict[str, ConfigValue]] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": MAX_TOKENS,
}
_GPT: Final[dict[str, ConfigValue]] = {
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": MAX_TOKENS,
}
_IMAGE: Final[dict[str, ConfigValue]] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}
_CLIP: Final[dict[str, ConfigValue]] = {
    "projection_dim": 32,
    **{f"text_config.{name}": value for name, value in _ENCODER.items()},
    **{f"vision_config.{name}": value for name, value in _IMAGE.items()},
}

TINY: Final[dict[Architecture, dict[str, ConfigValue]]] = {
    "albert": {**_ENCODER, "embedding_size": 32},
    "bart": _BART,
    "bert": _ENCODER,
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "chinese_clip": _CLIP,
    "deberta-v2": {**_ENCODER, "position_buckets": 16},
    "electra": {**_ENCODER, "embedding_size": 32},
    "ernie": _ENCODER,
    "gpt2": _GPT,
    "llama": {**_ENCODER, "num_key_value_heads": 4},
    "megatron-bert": _ENCODER,
    "megatron-t5": {**_ENCODER, "decoder_layers": 2},
    "mobilebert": {
        **_ENCODER, "embedding_size": 32, "intra_bottleneck_size": 32,
        "true_hidden_size": 32,
    },
    "mt5": _T5,
    "openai-gpt": _GPT,
    "pegasus": _BART,
    "roberta": {**_ENCODER, "max_position_embeddings": MAX_TOKENS + 2},
    "roformer": {**_ENCODER, "embedding_size": 32},
    "rope-longformer": {**_ENCODER, "attention_window": 16},
    "t5": _T5,
    "taiyi-clip": {**_CLIP, "vision_config.projection_dim": 32},
    "transfo-xl-denoise": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS, "max_memory_length": 64,
    },
    "ubert": {**_ENCODER, "biaffine_size": 32},
    "uniex": {**_ENCODER, "triaffine_hidden_size": 32},
    "vit": _IMAGE,
    "xlnet": {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128},
    # One n-gram layer fewer than layers: what stands behind the last one is part of ZEN.
    "zen1": {**_ENCODER, "num_hidden_word_layers": 1, "word_size": 2048},
    "zen2": {**_ENCODER, "num_hidden_word_layers": 1, "word_size": 2048},
    "zhouwenwang": _ENCODER,
}  # fmt: skip
"""Overrides of each architecture's config; `part.field` reaches into a part's own config. RoBERTa
has two positions more, which belong to its padding. The size of the vocabulary is the caller's."""


def tiny_config(entry: ModelEntry) -> dict[str, ConfigValue]:
    """Return the overrides that make an entry tiny, as `model.config` of a run spec takes them."""
    return dict(TINY[entry.architecture])
