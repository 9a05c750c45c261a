# SPDX-License-Identifier: Apache-2.0
"""What the tables of shapes are: a builder and the defaults of a config for each architecture.

Read by `architectures` and the tables beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pyfsb.training.shapes import ModelShape

ConfigMapping: TypeAlias = Mapping[str, Any]
"""Fields of a config by their names."""
ShapeTable: TypeAlias = Mapping[str, tuple[Callable[[ConfigMapping], ModelShape], ConfigMapping]]
"""By `model_type`, what reads a shape from a config, and the fields that configs may leave out."""
