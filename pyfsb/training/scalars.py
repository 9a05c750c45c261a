# SPDX-License-Identifier: Apache-2.0
"""Parameters without an axis, such as the factor of CLIP's similarities, get one while they train.

DeepSpeed 0.19 sends parameters as bytes, which torch refuses for tensors without an axis. `session`
gives the axis before the engine is made, `fragments` takes it away where weights leave it.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

_NAMES: Final = "_scalar_names"


def add_axes(module: nn.Module) -> None:
    """Give every parameter without an axis one, in place, and remember which."""
    scalars = {name: part for name, part in module.named_parameters() if part.dim() == 0}
    for parameter in scalars.values():
        parameter.data = parameter.data.reshape(1)
    setattr(module, _NAMES, frozenset(scalars) | getattr(module, _NAMES, frozenset()))


def drop_axis(module: nn.Module, name: str, value: Tensor) -> Tensor:
    """Return a parameter's value in its own shape.

    Args:
        module: As given to `add_axes`.
        name: Of the parameter.
        value: Its value, whole.
    """
    return value.reshape(()) if name in getattr(module, _NAMES, frozenset()) else value
