# SPDX-License-Identifier: Apache-2.0
"""AdamW, its parameter groups and its learning rate at each step.

Called by the engine (`build_optimizer`) and the loop (`learning_rate`). Never touches gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from pyfsb.config import OptimizerSpec

_FUSED_DEVICES: Final = ("cpu", "cuda", "xpu")
"""Devices on which torch 2.13 has AdamW as one kernel."""


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """Return AdamW over what needs gradients, with weight decay where it belongs.

    Source: Loshchilov and Hutter 2019; groups as in Devlin et al.'s optimizer.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [parameter for name, parameter in named if is_decayed(name, parameter)]
    kept = [parameter for name, parameter in named if not is_decayed(name, parameter)]
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=spec.learning_rate,
        betas=spec.betas,
        eps=spec.epsilon,
        fused=all(p.device.type in _FUSED_DEVICES for _, p in named),
    )


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Say whether weight decay applies: to matrices and embeddings, not to norms and biases.

    Biases, norm weights and scales have at most one axis in every architecture we train, whatever
    they are called; a table of biases (T5's relative positions) has two and is a bias all the same.

    Args:
        name: Such as encoder.layer.0.attention.ln.weight.
        parameter: Its value; its own shape counts where ZeRO-3 has taken it apart.
    """
    shape = getattr(parameter, "ds_shape", parameter.shape)
    owner = name.split(".")[-2] if "." in name else ""
    return len(shape) > 1 and not owner.endswith("bias")


def learning_rate(spec: OptimizerSpec, *, step: int, num_steps: int) -> float:
    """Return the learning rate of a step.

    Args:
        spec: Peak, warm-up and schedule.
        step: Steps taken before, from 0.
        num_steps: Steps of the whole training.

    Returns:
        A rate that rises linearly over the warm-up, reaches the peak at its end and then follows
        the schedule; the last step of a falling schedule is above its end.
    """
    warmup_steps = spec.warmup_steps
    if warmup_steps is None:
        warmup_steps = round(spec.warmup_ratio * num_steps)
    if step < warmup_steps:
        return spec.learning_rate * (step + 1) / warmup_steps
    last = spec.decay_steps or num_steps
    if spec.schedule == "inverse_sqrt":
        share = math.sqrt(max(1, warmup_steps) / max(1, step + 1))
        return max(spec.min_learning_rate, spec.learning_rate * min(1.0, share))
    start = warmup_steps
    if spec.schedule == "wsd":
        start = max(start, last - round(spec.cooldown_ratio * last))
    progress = min(1.0, max(0.0, (step - start) / max(1, last - start)))
    height = _HEIGHTS[spec.schedule](progress, spec.power)
    return spec.min_learning_rate + (spec.learning_rate - spec.min_learning_rate) * height


_HEIGHTS: Final[dict[str, Callable[[float, float], float]]] = {
    "linear": lambda progress, _: 1.0 - progress,
    "cosine": lambda progress, _: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "polynomial": lambda progress, power: float((1.0 - progress) ** power),
    "wsd": lambda progress, _: 1.0 - progress,
    "constant": lambda *_: 1.0,
}
"""Share of the way from the end to the peak, by the share of the fall that is done.

Source: cosine, Loshchilov and Hutter 2017; wsd, Hu et al. 2024 (falling linearly as in Hägele et
al. 2024); inverse_sqrt (above), Vaswani et al. 2017, section 5.3, scaled to meet the peak."""
