# SPDX-License-Identifier: Apache-2.0
"""Erlangshen-ZEN1 with its heads, `zen1` to the Auto classes.

Found by this package. Positions are learned, the n-gram matrix holds 0 and 1.

Shapes: B rows, T tokens of a row, G n-grams of a row, H hidden.

Source: as of `zen_layers`.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from transformers import AutoModelForPreTraining, AutoTokenizer

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models.architectures import zen_heads
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.architectures.zen_layers import ZenConfig
from pyfsb.models.architectures.zen_model import ZenModel, ZenPreTrainedModel
from pyfsb.models.key_maps import KeyMap
from pyfsb.tokenizers.ngram_tokenizer import ZenTokenizer


class Zen1Config(ZenConfig):
    """Config of ZEN1."""

    model_type = "zen1"

    legacy_masks_by_position: bool = False
    """Let heads other than the pretraining one mask as the original's: the attention mask becomes
    the token types of the n-grams (so there must be as many n-grams as tokens), and neither tokens
    nor n-grams are masked. Heads that were fine-tuned with that code need it."""
    legacy_packs_valid_tokens: bool = False
    """Let the tagging head move the tokens marked by `valid_ids` to the front and put zeros behind
    them, as the original's does if it has exactly 38 labels."""

    @property
    def has_legacy_masks(self) -> bool:
        """Whether heads mask as the original's."""
        return self.legacy_masks_by_position


class Zen1PreTrainedModel(ZenPreTrainedModel):
    """What the model and its heads share."""

    config_class = Zen1Config

    def weigh_ngrams(self, covers_BTG: Tensor, frequencies_BG: Tensor | None) -> Tensor:
        """Return the position matrix: 1 where an n-gram covers a token, whatever its frequency."""
        del frequencies_BG
        return covers_BTG


class Zen1Model(Zen1PreTrainedModel, ZenModel):
    """ZEN1 without a head."""

    def legacy_masks(
        self, attention_mask: Tensor | None, ngrams: dict[str, Tensor | None]
    ) -> Tensor | None:
        """Mask nothing; the mask becomes the token types of the n-grams.

        Raises:
            ConfigError: There are not as many n-grams as tokens.
        """
        ids_BG = ngrams["ids"]
        if ids_BG is None:
            return None
        ngrams["mask"] = torch.ones_like(ids_BG)
        if attention_mask is not None:
            if attention_mask.shape != ids_BG.shape:
                raise ConfigError(
                    f"legacy_masks_by_position: {ids_BG.shape[-1]} n-grams in rows of "
                    f"{attention_mask.shape[-1]} tokens; expected as many, or no attention_mask"
                )
            ngrams["types"] = attention_mask.long()
        return None


class Zen1ForMaskedLM(Zen1PreTrainedModel, zen_heads.ZenForMaskedLM):
    """ZEN1 that predicts masked tokens."""

    model_class = Zen1Model


class Zen1ForPreTraining(Zen1PreTrainedModel, zen_heads.ZenForPreTraining):
    """ZEN1 that predicts masked tokens and judges two sentences."""

    model_class = Zen1Model


class Zen1ForSequenceClassification(Zen1PreTrainedModel, zen_heads.ZenForSequenceClassification):
    """ZEN1 with a class for each text."""

    model_class = Zen1Model


class Zen1ForTokenClassification(Zen1PreTrainedModel, zen_heads.ZenForTokenClassification):
    """ZEN1 with a class for each token."""

    model_class = Zen1Model

    def arrange(self, hidden_BTH: Tensor, valid_ids: Tensor | None) -> Tensor:
        """Return the states that are classified: all, or as `legacy_packs_valid_tokens` says."""
        if valid_ids is None or not self.config.legacy_packs_valid_tokens:
            return hidden_BTH
        is_valid_BT = valid_ids == 1
        order_BT = is_valid_BT.long().argsort(dim=-1, descending=True, stable=True)
        packed_BTH = hidden_BTH.gather(1, order_BT[..., None].expand_as(hidden_BTH))
        is_kept_BT1 = is_valid_BT.gather(1, order_BT)[..., None]
        return packed_BTH * is_kept_BT1.to(packed_BTH.dtype)

    @property
    def skips_padding(self) -> bool:
        """Whether labels of padding are no targets; they were to the original."""
        return not self.config.legacy_masks_by_position


class Zen1ForQuestionAnswering(Zen1PreTrainedModel, zen_heads.ZenForQuestionAnswering):
    """ZEN1 that finds where an answer starts and ends."""

    model_class = Zen1Model


PUBLISHED_NAMES: Final = KeyMap(
    rules=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    dropped=(
        r".*embeddings\.position_ids",
        r".*attention\.self\.position_embedding\.(weights|_float_tensor)",
    ),
)
"""Of both versions: names are kept but for those of converted TensorFlow norms; buffers go."""

ARCHITECTURE = Architecture(
    config=Zen1Config,
    base=Zen1Model,
    classes={
        Family.FILL_MASK: Zen1ForMaskedLM,
        Family.CLASSIFY: Zen1ForSequenceClassification,
        Family.PAIR: Zen1ForSequenceClassification,
        Family.TAG: Zen1ForTokenClassification,
        Family.ANSWER: Zen1ForQuestionAnswering,
    },
    key_map=PUBLISHED_NAMES,
)

# The package registers one class a family; two heads at once are no family.
AutoModelForPreTraining.register(Zen1Config, Zen1ForPreTraining, exist_ok=True)
AutoTokenizer.register(Zen1Config, tokenizer_class=ZenTokenizer, exist_ok=True)
