# SPDX-License-Identifier: Apache-2.0
"""What a module of this folder says about the architecture that it holds.

Each module defines one `ARCHITECTURE`; the package finds it, so adding one is adding one file.
Read by `pyfsb.models.architectures` and through it by loading and importing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from pyfsb.config import Family
from pyfsb.models.key_maps import KeyMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An architecture that `transformers` lacks."""

    config: type[PreTrainedConfig]
    """Config class; its `model_type` names the architecture."""
    base: type[PreTrainedModel]
    """What AutoModel makes."""
    classes: Mapping[Family, type[PreTrainedModel]] = field(default_factory=dict)
    """The class with the head of each task family that it has."""
    key_map: KeyMap = field(default_factory=KeyMap)
    """From the names in published checkpoints to ours."""
    config_map: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """From the fields of a published config.json to ours. None: they are the same."""
