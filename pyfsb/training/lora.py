# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: put into a model before training, merged into its weights at the export.

`session` calls `add_adapters` and `export` calls `merge_adapters`. Only the adapters (and, in a
fine-tuning, the new head) need gradients, so saved states hold nothing else. Never saves anything.

Source: Hu et al. 2021; `peft` makes the layers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pyfsb.config import LoraSpec
from pyfsb.errors import ConfigError, did_you_mean, nearest_names
from pyfsb.seeding import hash64

_ADAPTERS: Final = 11
_ATTENTION: Final = re.compile(r"attn|attention", re.IGNORECASE)
_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(
    model: PreTrainedModel, spec: LoraSpec, *, seed: int, trains_head: bool
) -> PreTrainedModel:
    """Put adapters beside linear layers and freeze all else; returns the model.

    Args:
        model: With its first weights.
        spec: Rank, scale and which layers.
        seed: Of the adapters' first weights; their product is zero at first.
        trains_head: Train what lies outside the base model, and poolers, as well: they are new.

    Raises:
        ConfigError: A target names no linear layer, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("training.lora needs peft; install fengshenbang[train]") from None

    targets = find_targets(model, spec.targets)
    is_transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in targets)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        fan_in_fan_out=is_transposed,
    )
    base = f"{model.base_model_prefix}."
    head = [p for name, p in model.named_parameters()
            if not name.startswith(base) or ".pooler." in f".{name}"]  # fmt: skip
    torch.manual_seed(int(hash64(seed, _ADAPTERS)) >> 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of what fan_in_fan_out says
        inject_adapter_in_model(config, model)
    for parameter in head if trains_head else ():
        parameter.requires_grad_(True)
    return model


def find_targets(model: nn.Module, ends: tuple[str, ...]) -> list[str]:
    """Return the names of the linear layers to adapt.

    Args:
        model: The model.
        ends: Ends of names, such as query or mlp.c_fc. Empty: all linear layers of attention.

    Raises:
        ConfigError: One of them names no linear layer.
    """
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    if not ends:
        return [name for name in linear if _ATTENTION.search(name)]
    for end in ends:
        if not any(_ends_with(name, end) for name in linear):
            known = sorted({name.rsplit(".", 1)[-1] for name in linear})
            near = did_you_mean(nearest_names(end, known))
            raise ConfigError(
                f"training.lora.targets: no linear layer's name ends with {end!r}{near}; "
                f"there are {', '.join(known)}"
            )
    return [name for name in linear if any(_ends_with(name, end) for end in ends)]


def merge_adapters(
    weights: Mapping[str, Tensor], spec: LoraSpec, model: nn.Module
) -> dict[str, Tensor]:
    """Return weights with every adapter added to its layer, by the names of the plain model.

    Args:
        weights: Full weights of the adapted model, by its names.
        spec: Rank and scale.
        model: The adapted model; says which layers lie transposed.
    """
    merged: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith((_DOWN, _UP)):
            continue
        if _BASE not in name:
            merged[name] = value
            continue
        layer, _, field = name.rpartition(_BASE)
        if field == "weight":
            update = weights[layer + _UP] @ weights[layer + _DOWN] * (spec.alpha / spec.rank)
            base = model.get_submodule(layer + _BASE.rstrip("."))
            value = value + (update.T if isinstance(base, Conv1D) else update)
        merged[f"{layer}.{field}"] = value
    return merged


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
