# SPDX-License-Identifier: Apache-2.0
"""What the unpadded forwards share: their types, and the walk through a stack of layers.

Shapes: N tokens of all documents end to end, P chosen ones, H hidden, A attention heads, D width of
a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyfsb.models.unpadded.documents import Documents

# Parts of Hugging Face models are known by their attributes only.
SingleForward: TypeAlias = Callable[
    [Any, Tensor, Tensor | None, Documents, Tensor | None, bool], Tensor
]

StackForward: TypeAlias = Callable[
    [Any, Tensor, Documents, Tensor | None, Documents | None, bool], Tensor
]
"""Takes a stack, its ids, where they lie, the encoder's states and where those lie (None in the
encoder itself), and whether to keep only the inputs of layers."""


def run_layers(
    layers: Sequence[Any],
    step: Callable[[Any, Tensor, Tensor | None], Tensor],
    hidden_NH: Tensor,
    *,
    checkpoints: bool,
    places_P: Tensor | None = None,
) -> Tensor:
    """Send hidden states through layers.

    Args:
        layers: Modules.
        step: Computes one of them, for chosen tokens only where it gets places.
        hidden_NH: States before the first.
        checkpoints: Keep only the inputs of layers, compute the rest again in the backward pass.
        places_P: Tokens whose states are wanted in the end, None: all. What the last layer does
            after its attention is done for them alone.
    """
    keeps_inputs_only = checkpoints and torch.is_grad_enabled()
    for number, layer in enumerate(layers):
        places = places_P if number == len(layers) - 1 else None
        if keeps_inputs_only:
            hidden_NH = checkpoint(step, layer, hidden_NH, places, use_reentrant=False)
        else:
            hidden_NH = step(layer, hidden_NH, places)
    return hidden_NH


def choose(states_NH: Tensor, places_P: Tensor | None) -> Tensor:
    """Return the states of chosen tokens, [P, H], or of all."""
    return states_NH if places_P is None else states_NH.index_select(0, places_P)


def split_heads(states_NH: Tensor, head_width: int) -> Tensor:
    """View [N, A x D] as [N, A, D]."""
    return torch.unflatten(states_NH, -1, (-1, head_width))


def is_layer_dropped(ratio: float, *, is_training: bool) -> bool:
    """Draw whether LayerDrop (Fan et al. 2019) leaves a layer out, as Hugging Face's models do."""
    return is_training and ratio > 0.0 and float(torch.rand([])) < ratio
