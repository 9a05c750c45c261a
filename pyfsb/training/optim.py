# SPDX-License-Identifier: Apache-2.0
"""AdamW, its parameter groups and its learning rate at each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from pyfsb.config import OptimizerSpec


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices and embeddings only.

    Biases and norm weights are vectors in every architecture we train, whatever they are called:
    the rule goes by the number of axes, so no list of name parts can miss one.

    Source: Loshchilov and Hutter 2019; groups as in Devlin et al.'s optimizer.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim > 1],
            "weight_decay": spec.weight_decay,
        },
        {
            "params": [parameter for parameter in parameters if parameter.ndim <= 1],
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=spec.learning_rate,
        betas=spec.betas,
        eps=spec.epsilon,
    )


def learning_rate(spec: OptimizerSpec, *, step: int, num_steps: int) -> float:
    """Return the learning rate of a step.

    Args:
        spec: Peak, warm-up and schedule.
        step: Steps taken before, from 0.
        num_steps: Steps of the whole training.

    Returns:
        A rate that rises linearly over the warm-up, reaches the peak at its end and then follows
        the schedule; the last step of a falling schedule is above 0.
    """
    warmup_steps = round(spec.warmup_ratio * num_steps)
    if step < warmup_steps:
        return spec.learning_rate * (step + 1) / warmup_steps
    if spec.schedule == "constant":
        return spec.learning_rate
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    if spec.schedule == "cosine":
        return spec.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    return spec.learning_rate * (1.0 - progress)
