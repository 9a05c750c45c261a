# SPDX-License-Identifier: Apache-2.0
"""Fengshenbang: name a model, take it from raw Chinese text to a served, CLUE-scored endpoint.

    import pyfsb
    model = pyfsb.load("runs/demo/evaluation/tnews/finetune-42")
    print(model.predict(["中国女排夺得世界杯冠军"])[0].label)

Importing the package is cheap: torch is loaded by `load`, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyfsb.inference.protocol import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(name_or_uri: str, *, family: str | None = None) -> Predictor:
    """Load a model for prediction.

    Args:
        name_or_uri: A run's checkpoint folder (or s3:// prefix), a Hugging Face folder with
            safetensors, hf://org/name or modelscope://org/name, a registered model name, whose
            published weights are taken, or a version of the model store (`FSB_MODEL_STORE`):
            `sentiment@production`, `sentiment@3`.
        family: What to ask it for, such as "choose". None: what it was trained for.

    Returns:
        A predictor whose `predict(texts)` gives one typed result a text.

    Raises:
        CheckpointError: Nothing usable is there.
        UnknownNameError: Neither a place nor a registered name, or no such family.
    """
    from importlib import import_module

    from pyfsb.config import Family
    from pyfsb.errors import UnknownNameError

    known = [member.value for member in Family]
    if family is not None and family not in known:
        raise UnknownNameError(f"family (known: {', '.join(known)})", family, known)
    wanted = Family(family) if family else None
    load_predictor = import_module("pyfsb.inference.loading").load_predictor
    predictor: Predictor = load_predictor(name_or_uri, family=wanted)
    return predictor
