# SPDX-License-Identifier: Apache-2.0
"""Losses as modules: a flat batch goes in, the sum over its targets comes out.

The sum, never the mean: training divides by the number of targets of all processes, so the result
does not depend on how a batch is shared out. Called by training, evaluation and inference; never
moves a tensor to a device.
"""

from __future__ import annotations

from torch import nn

from pyfsb.config import Family
from pyfsb.models import unpadded
from pyfsb.models.contrastive_loss import ContrastiveLoss, ImageClassificationLoss, ImageLoss
from pyfsb.models.document_loss import DocumentLoss, Layout, pad_flat
from pyfsb.models.language_losses import (
    LanguageModelLoss,
    PairLoss,
    logits_at,
    vocabulary_logits,
)
from pyfsb.models.row_losses import ChoiceLoss, ExtractionLoss, RowLoss
from pyfsb.models.supervised_losses import ClassificationLoss, TaggingLoss

__all__ = ["Layout", "build_loss", "default_layout", "logits_at", "pad_flat", "vocabulary_logits"]


def default_layout(architecture: str, device_type: str, family: Family | None = None) -> Layout:
    """Return how samples lie where a spec does not say.

    Args:
        architecture: `model_type` of the config.
        device_type: "cpu", "cuda" …; every device here has a way to attend to flat documents.
        family: What is trained; rows of choices and of kinds are padded.
    """
    del device_type
    is_flat = unpadded.supports(architecture) and family not in (Family.CHOOSE, Family.EXTRACT)
    return "flat" if is_flat else "buckets"


def build_loss(
    model: nn.Module,
    family: Family,
    layout: Layout,
    *,
    micro_tokens: int | None = None,
    checkpoints_activations: bool = False,
) -> nn.Module:
    """Return the module that turns flat batches into the sum of their losses.

    Args:
        model: With the head of the family; also inside of peft's adapters.
        family: What it is trained for. GENERATE takes encoder-decoders too.
        layout: flat and packed compute no padding; buckets and padded pad inside of the module.
        micro_tokens: Tokens that layout packed fills every batch up to.
        checkpoints_activations: Keep only the inputs of layers for the backward pass.

    Raises:
        ConfigError: The layout does not fit the architecture, or packed lacks micro_tokens.
    """
    kinds: dict[Family, type[DocumentLoss] | type[RowLoss] | type[ImageLoss]] = {
        Family.CLASSIFY: ClassificationLoss,
        Family.PAIR: ClassificationLoss,
        Family.TAG: TaggingLoss,
        Family.CHOOSE: ChoiceLoss,
        Family.EXTRACT: ExtractionLoss,
        Family.IMAGE_TEXT: ContrastiveLoss,
        Family.CLASSIFY_IMAGE: ImageClassificationLoss,
    }
    is_pair = unpadded.unwrap(model).config.is_encoder_decoder
    kind = kinds.get(family, PairLoss if is_pair else LanguageModelLoss)
    return kind(
        model,
        layout=layout,
        micro_tokens=micro_tokens,
        checkpoints_activations=checkpoints_activations,
    )
