# SPDX-License-Identifier: Apache-2.0
"""Shapes of text and image towers, read from their configs: one function for each architecture.

Called by `architectures`. Never builds a model and never imports torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pyfsb.training.architectures_encoders import BERT, bert, encoder_stack
from pyfsb.training.architectures_protocol import ConfigMapping, ShapeTable
from pyfsb.training.shapes import ModelShape, Side, Stack


def _clip_text(config: ConfigMapping) -> ModelShape:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    return ModelShape(
        architecture="clip_text_model",
        body=encoder_stack(config),
        vocabulary=vocabulary,
        has_vocabulary_head=False,
        embedding_parameters=(vocabulary + config["max_position_embeddings"]) * hidden,
        other_parameters=2 * hidden,
        max_positions=config["max_position_embeddings"],
        is_causal=True,
    )


def _num_patches(config: ConfigMapping) -> int:
    """Return the patches of an image; sides may differ."""
    image, patch = (_sides(config[name]) for name in ("image_size", "patch_size"))
    return (image[0] // patch[0]) * (image[1] // patch[1])


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _patch_stack(config: ConfigMapping) -> Stack:
    height, width = _sides(config["patch_size"])
    weights = config["num_channels"] * height * width * config["hidden_size"]
    return replace(encoder_stack(config), convolution_weights=weights, norms_first=True)


def _vit(config: ConfigMapping) -> ModelShape:
    hidden, num_tokens = config["hidden_size"], _num_patches(config) + 1
    body = _patch_stack(config)
    if not config["qkv_bias"]:
        body = replace(body, num_vectors=body.num_vectors - 3 * hidden)
    num_labels = config["num_labels"] or 2
    # The class token and the positions; the convolution's bias, the last norm and the head.
    return ModelShape(
        architecture="vit",
        body=body,
        vocabulary=0,
        has_vocabulary_head=False,
        embedding_parameters=(1 + num_tokens) * hidden,
        other_parameters=hidden + 2 * hidden + (hidden + 1) * num_labels,
        max_positions=0,
        fixed_tokens=num_tokens,
        has_dropout=config["hidden_dropout_prob"] > 0,
        is_flat=False,
    )


def _taiyi_clip(config: ConfigMapping) -> ModelShape:
    text = {**BERT, **(config["text_config"] or {})}
    image = {**_CLIP_VISION, **(config["vision_config"] or {})}
    shape, stack = bert(text), _patch_stack(image)
    hidden, width = shape.body.hidden, config["projection_dim"]
    num_tokens = _num_patches(image) + 1
    # Of BERT the norm of the embeddings and the pooler; of the images two norms and what stands
    # before the layers; both projections, and the factor of the similarities.
    text_parameters = 2 * hidden + hidden * hidden + hidden
    image_parameters = 4 * stack.hidden + (1 + num_tokens) * stack.hidden
    return replace(
        shape,
        architecture="taiyi-clip",
        side=Side(stack=stack, tokens_per_document=num_tokens),
        has_vocabulary_head=False,
        head_transform_weights=0,
        other_parameters=text_parameters
        + image_parameters
        + (hidden + stack.hidden) * width
        + width * config["text_projection_bias"]
        + 1,
        is_flat=False,
    )


_CLIP_TEXT: Final = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}  # fmt: skip
_CLIP_VISION: Final = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32,
    "hidden_act": "quick_gelu",
}  # fmt: skip
_VIT: Final = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 16,
    "qkv_bias": True, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "num_labels": None,
}  # fmt: skip
_TAIYI_CLIP: Final = {
    "projection_dim": 512, "text_config": None, "vision_config": None,
    "text_projection_bias": False,
}  # fmt: skip

SHAPES: Final[ShapeTable] = {
    "clip_text_model": (_clip_text, _CLIP_TEXT),
    "vit": (_vit, _VIT),
    "taiyi-clip": (_taiyi_clip, _TAIYI_CLIP),
}
"""Builder and defaults of each architecture."""
