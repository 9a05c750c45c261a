# SPDX-License-Identifier: Apache-2.0
"""What the predictors that write have in common: special tokens, bounds, when to stop.

Called by families generate and rewrite. Never loads a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteriaList

from pyfsb.inference.deadline import check_deadline

MAX_NEW_TOKENS: Final = 64
"""Tokens of an answer at most, where the model's generation_config.json names no number."""


def special_ids(config: Any, name: str) -> list[int]:
    """Return the ids of a kind of special token: a config has none, one, or a list of them."""
    value = getattr(config, name, None)
    if value is None:
        return []
    return [int(item) for item in value] if isinstance(value, list) else [int(value)]


def end_ids(model: PreTrainedModel) -> list[int]:
    """Return the ids that end an answer: of the generation config, else of the config."""
    return special_ids(model.generation_config, "eos_token_id") or special_ids(
        model.config, "eos_token_id"
    )


def max_new_tokens(model: PreTrainedModel) -> int:
    """Return the longest answer in tokens: of the generation config, else 64."""
    return int(getattr(model.generation_config, "max_new_tokens", None) or MAX_NEW_TOKENS)


def stopping(is_done: Callable[[list[int]], bool] | None = None) -> StoppingCriteriaList:
    """Return criteria that stop all rows at the deadline, and each one where it is done.

    Args:
        is_done: Asked with the ids of each row after each token, prompt included; None: no row is
            done before its end token.
    """

    def goes_on(ids_BT: Tensor, _scores: object, **_settings: object) -> Tensor:
        check_deadline()  # a large model takes seconds for a token
        done_B = torch.zeros(len(ids_BT), dtype=torch.bool, device=ids_BT.device)
        if is_done is not None:
            done_B[:] = torch.tensor([is_done(row) for row in ids_BT.tolist()])
        return done_B

    return StoppingCriteriaList([goes_on])
