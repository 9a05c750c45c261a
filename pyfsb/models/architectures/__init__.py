# SPDX-License-Identifier: Apache-2.0
"""Architectures of the family that `transformers` lacks, one module each.

Importing this package registers them all with the Auto classes, so `from_pretrained` of an
exported folder finds them. Called by `pyfsb.models.loading`; modules hold models, never training.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any, Final

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from pyfsb.config import Family
from pyfsb.models.architectures.protocol import Architecture

__all__ = ["Architecture", "all_architectures", "find_architecture"]

_AUTO_CLASSES: Final[dict[Family, Any]] = {
    Family.FILL_MASK: AutoModelForMaskedLM,
    Family.GENERATE: AutoModelForCausalLM,
    Family.REWRITE: AutoModelForSeq2SeqLM,
    Family.CLASSIFY: AutoModelForSequenceClassification,
    Family.TAG: AutoModelForTokenClassification,
    Family.ANSWER: AutoModelForQuestionAnswering,
}


@cache
def all_architectures() -> dict[str, Architecture]:
    """Return every architecture of this package by its `model_type`."""
    found: dict[str, Architecture] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        architecture = getattr(module, "ARCHITECTURE", None)
        if isinstance(architecture, Architecture):
            found[architecture.config.model_type] = architecture
    return found


def find_architecture(model_type: str) -> Architecture | None:
    """Return the architecture with this `model_type`; None if it is one of `transformers`."""
    return all_architectures().get(model_type)


def _register() -> None:
    for model_type, architecture in all_architectures().items():
        AutoConfig.register(model_type, architecture.config, exist_ok=True)
        AutoModel.register(architecture.config, architecture.base, exist_ok=True)
        for family, auto_class in _AUTO_CLASSES.items():
            if family in architecture.classes:
                auto_class.register(
                    architecture.config, architecture.classes[family], exist_ok=True
                )


_register()
