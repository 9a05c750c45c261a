# SPDX-License-Identifier: Apache-2.0
"""Losses as modules: a batch goes in, the sum over its targets comes out.

Shapes: B rows, T tokens, P predicted positions, V vocabulary, L labels, H hidden.

The sum, never the mean: training divides by the number of targets of all processes, so the result
does not depend on how a batch is shared out. The vocabulary head runs at predicted positions only.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from pyfsb.config import Family
from pyfsb.errors import ConfigError

VOCABULARY_HEADS: Final = {"megatron-bert": "cls", "deberta-v2": "cls", "gpt2": "lm_head"}
"""Attribute of the model that maps hidden states to vocabulary logits."""


def logits_at(
    model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor, positions_P: Tensor
) -> Tensor:
    """Return vocabulary logits at chosen positions only.

    Args:
        model: A masked or causal language model of `VOCABULARY_HEADS`.
        input_ids_BT: Ids, [B, T].
        attention_mask_BT: 1 on tokens, [B, T].
        positions_P: Flat positions row x T + column, [P].

    Returns:
        Logits [P, V], equal to the full forward pass at these positions.

    Raises:
        ConfigError: The architecture is not in `VOCABULARY_HEADS`.
    """
    kind = model.config.model_type
    if kind not in VOCABULARY_HEADS:
        raise ConfigError(f"{kind}: no vocabulary head known; add it to VOCABULARY_HEADS")
    hidden_BTH = model.base_model(input_ids=input_ids_BT, attention_mask=attention_mask_BT)[0]
    hidden_PH = hidden_BTH.flatten(0, 1).index_select(0, positions_P)
    logits_PV: Tensor = getattr(model, VOCABULARY_HEADS[kind])(hidden_PH)
    return logits_PV


class LanguageModelLoss(nn.Module):
    """Cross entropy of predicted tokens, masked or causal."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap a language model."""
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
    ) -> Tensor:
        """Return the sum of the losses at the target positions, in nats."""
        logits_PV = logits_at(self.model, input_ids, attention_mask, target_positions)
        return functional.cross_entropy(logits_PV.float(), target_ids, reduction="sum")


class ClassificationLoss(nn.Module):
    """Cross entropy of one label a row."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap a sequence classification model."""
        super().__init__()
        self.model = model

    def forward(self, target_ids: Tensor, **inputs: Tensor) -> Tensor:
        """Return the sum of the rows' losses, in nats."""
        logits_BL = self.model(**inputs).logits
        return functional.cross_entropy(logits_BL.float(), target_ids, reduction="sum")


class TaggingLoss(nn.Module):
    """Cross entropy of one label a token."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap a token classification model."""
        super().__init__()
        self.model = model

    def forward(self, target_positions: Tensor, target_ids: Tensor, **inputs: Tensor) -> Tensor:
        """Return the sum of the losses at the target positions, in nats."""
        logits_BTL = self.model(**inputs).logits
        logits_PL = logits_BTL.flatten(0, 1).index_select(0, target_positions)
        return functional.cross_entropy(logits_PL.float(), target_ids, reduction="sum")


LOSSES: Final[dict[Family, type[nn.Module]]] = {
    Family.FILL_MASK: LanguageModelLoss,
    Family.GENERATE: LanguageModelLoss,
    Family.CLASSIFY: ClassificationLoss,
    Family.PAIR: ClassificationLoss,
    Family.TAG: TaggingLoss,
}
