# SPDX-License-Identifier: Apache-2.0
"""Erlangshen-ZEN2 with its heads, `zen2` to the Auto classes.

Found by this package. Positions are relative, in both encoders, and the n-gram matrix holds the
shares of the n-grams' frequencies.

Shapes: B rows, T tokens of a row, G n-grams of a row, H hidden.

Source: as of `zen_layers`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForPreTraining, AutoTokenizer

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models.architectures import zen_heads
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.architectures.zen1 import PUBLISHED_NAMES
from pyfsb.models.architectures.zen_layers import ZenConfig
from pyfsb.models.architectures.zen_model import (
    ZenModel,
    ZenPreTrainedModel,
    normalise_weights,
)
from pyfsb.tokenizers.ngram_tokenizer import ZenTokenizer


class Zen2Config(ZenConfig):
    """Config of ZEN2."""

    model_type = "zen2"
    has_relative_positions: ClassVar[bool] = True

    word_size: int = 261361
    legacy_unmasked_ngrams: bool = False
    """Let the n-grams of classifying, tagging and answering heads attend to padding, as the
    original's do: states then depend on how many n-grams other rows of the batch have (the
    original pads to 128). Heads that were fine-tuned with that code need it."""
    legacy_integer_weights: bool = False
    """Cut the weights of n-grams that overlap to 0, as the original's collator for classification
    does: only where a single n-gram covers a token it has weight 1."""

    @property
    def has_legacy_masks(self) -> bool:
        """Whether heads mask as the original's."""
        return self.legacy_unmasked_ngrams


class Zen2PreTrainedModel(ZenPreTrainedModel):
    """What the model and its heads share."""

    config_class = Zen2Config

    def weigh_ngrams(self, covers_BTG: Tensor, frequencies_BG: Tensor | None) -> Tensor:
        """Return the position matrix: shares of the frequencies of all n-grams at a token.

        Raises:
            ConfigError: There are no frequencies.
        """
        if frequencies_BG is None:
            raise ConfigError("zen2 weighs n-grams by frequency: expected ngram_frequencies")
        weights_BTG = normalise_weights(covers_BTG, frequencies_BG)
        return weights_BTG.trunc() if self.config.legacy_integer_weights else weights_BTG


class Zen2Model(Zen2PreTrainedModel, ZenModel):
    """ZEN2 without a head."""

    def legacy_masks(
        self, attention_mask: Tensor | None, ngrams: dict[str, Tensor | None]
    ) -> Tensor | None:
        """Mask tokens, but no n-grams."""
        if ngrams["ids"] is not None:
            ngrams["mask"] = torch.ones_like(ngrams["ids"])
        return attention_mask


class Zen2ForMaskedLM(Zen2PreTrainedModel, zen_heads.ZenForMaskedLM):
    """ZEN2 that predicts masked tokens."""

    model_class = Zen2Model
    can_mask_as_original = False  # this one hands on every mask


class Zen2ForPreTraining(Zen2PreTrainedModel, zen_heads.ZenForPreTraining):
    """ZEN2 that predicts masked tokens and judges two sentences."""

    model_class = Zen2Model


class Zen2ForSequenceClassification(Zen2PreTrainedModel, zen_heads.ZenForSequenceClassification):
    """ZEN2 with a class for each text."""

    model_class = Zen2Model


class Zen2ForTokenClassification(Zen2PreTrainedModel, zen_heads.ZenForTokenClassification):
    """ZEN2 with a class for each token."""

    model_class = Zen2Model


class Zen2ForQuestionAnswering(Zen2PreTrainedModel, zen_heads.ZenForQuestionAnswering):
    """ZEN2 that finds where an answer starts and ends."""

    model_class = Zen2Model


ARCHITECTURE = Architecture(
    config=Zen2Config,
    base=Zen2Model,
    classes={
        Family.FILL_MASK: Zen2ForMaskedLM,
        Family.CLASSIFY: Zen2ForSequenceClassification,
        Family.PAIR: Zen2ForSequenceClassification,
        Family.TAG: Zen2ForTokenClassification,
        Family.ANSWER: Zen2ForQuestionAnswering,
    },
    key_map=PUBLISHED_NAMES,
)

AutoModelForPreTraining.register(Zen2Config, Zen2ForPreTraining, exist_ok=True)
AutoTokenizer.register(Zen2Config, tokenizer_class=ZenTokenizer, exist_ok=True)
