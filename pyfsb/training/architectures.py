# SPDX-License-Identifier: Apache-2.0
"""The shape of every architecture, read from its config.

The builders lie beside it: encoders, decoders, towers. A test compares every count of parameters
with the model that is built. Called by `flops` and `planner`; never builds a model and never
imports torch.
"""

from __future__ import annotations

from typing import Final

from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.training import architectures_decoders, architectures_encoders, architectures_towers
from pyfsb.training.architectures_protocol import ConfigMapping, ShapeTable
from pyfsb.training.shapes import ModelShape

__all__ = ["ConfigMapping", "merge_config", "shape_of"]

_SHAPES: Final[ShapeTable] = {
    **architectures_encoders.SHAPES,
    **architectures_decoders.SHAPES,
    **architectures_towers.SHAPES,
}


def merge_config(config: ConfigMapping, overrides: ConfigMapping) -> ConfigMapping:
    """Return a config with a spec's overrides; `part.field` reaches into a part's own fields."""
    merged = dict(config)
    for key, value in overrides.items():
        part, dot, field = key.partition(".")
        merged[part] = {**(merged.get(part) or {}), field: value} if dot else value
    return merged


def shape_of(architecture: str, config: ConfigMapping) -> ModelShape:
    """Return the shape of a model.

    Args:
        architecture: `model_type` of its config, Transformers' or ours.
        config: Fields of its config; what is missing takes the default.

    Raises:
        UnknownNameError: No shape is known for this architecture.
        ConfigError: A size is not a positive number, or heads do not divide the width.
    """
    if architecture not in _SHAPES:
        known = ", ".join(sorted(_SHAPES))
        raise UnknownNameError(f"architecture (known: {known})", architecture, _SHAPES)
    build, defaults = _SHAPES[architecture]
    shape = build({**defaults, **config})
    for stack in shape.every_stack:
        sizes = (stack.num_layers, stack.hidden, stack.num_heads, stack.width, stack.intermediate)
        if min(sizes) < 1 or shape.vocabulary < shape.has_vocabulary_head:
            raise ConfigError(f"{architecture}: sizes must be at least 1, got {stack}")
        if stack.width % stack.num_heads:
            raise ConfigError(
                f"{architecture}: {stack.num_heads} heads do not divide a width of {stack.width}"
            )
    return shape
