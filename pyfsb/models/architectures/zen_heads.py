# SPDX-License-Identifier: Apache-2.0
"""Heads of ZEN, for both versions: `zen1` and `zen2` give them their config and base class.

Unlike the original's, these hand on every mask (its behaviour stands behind the configs' legacy
fields), take labels of -100 for "no target" and give logits without labels too.

Shapes: B rows, T tokens of a row, P chosen tokens, H hidden, V vocabulary, L labels.

Source: heads of IDEA-CCNL/Fengshenbang-LM's zen1 and zen2 at c8fb7b8.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import (
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    TokenClassifierOutput,
)
from transformers.models.bert.modeling_bert import BertForPreTrainingOutput

from pyfsb.models.architectures.bert_heads import (
    Classifier,
    LanguageHead,
    LanguageModel,
    TextClassifier,
)
from pyfsb.models.architectures.zen_model import ZenModel, ZenPreTrainedModel

_IGNORED: Final = -100


class ZenHeadModel(ZenPreTrainedModel):
    """What models with a head share."""

    model_class: ClassVar[type[ZenModel]]
    """The base class of this version."""
    can_mask_as_original: ClassVar[bool] = True
    """Whether the original's head of this kind hands its masks on wrongly."""

    def make_base(self, config: Any) -> ZenModel:
        """Return the base model with the masks that the config asks for."""
        is_legacy = self.can_mask_as_original and config.has_legacy_masks
        return self.model_class(config, has_legacy_masks=is_legacy)

    def mean_loss(self, logits: Tensor, labels: Tensor | None) -> Tensor | None:
        """Return the mean cross entropy where labels are neither -100 nor the legacy label.

        Args:
            logits: Classes on the last axis.
            labels: Of the same shape but for that axis; None gives None.
        """
        if labels is None:
            return None
        legacy = self.config.legacy_ignored_label
        if legacy is not None:
            labels = labels.masked_fill(labels == legacy, _IGNORED)
        return functional.cross_entropy(
            logits.flatten(0, -2), labels.flatten(), ignore_index=_IGNORED
        )


class ZenLanguageModel(ZenHeadModel, LanguageModel):
    """What models with a vocabulary share."""


class ZenForMaskedLM(ZenLanguageModel):
    """ZEN that predicts masked tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = self.make_base(config)
        self.cls = LanguageHead(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, *, labels: Tensor | None = None, **inputs: Any
    ) -> MaskedLMOutput:
        """Return logits at all tokens; with labels (-100: no target) also the mean loss."""
        states = self.bert(input_ids, **inputs)
        logits_BTV = self.lm_logits(states[0])
        return MaskedLMOutput(
            loss=self.mean_loss(logits_BTV, labels),
            logits=logits_BTV,
            hidden_states=states.hidden_states,
        )


class ZenForPreTraining(ZenLanguageModel):
    """ZEN that predicts masked tokens and judges two sentences; always masks as it should."""

    can_mask_as_original = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = self.make_base(config)
        self.cls = LanguageHead(config, judges_sentences=True)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **inputs: Any,
    ) -> BertForPreTrainingOutput:
        """Return both logits, and the sum of the mean losses of those labels that are given.

        Args:
            input_ids: Ids, [B, T].
            labels: Masked tokens, -100 elsewhere, [B, T].
            next_sentence_label: 0 is the next sentence, 1 another one, -100 not judged, [B].
            **inputs: As of the base model.
        """
        states = self.bert(input_ids, **inputs)
        logits_BTV = self.lm_logits(states[0])
        order_B2 = self.cls.seq_relationship(states.pooler_output)
        losses = (
            self.mean_loss(logits_BTV, labels),
            self.mean_loss(order_B2, next_sentence_label),
        )
        given = [loss for loss in losses if loss is not None]
        return BertForPreTrainingOutput(
            loss=torch.stack(given).sum() if given else None,
            prediction_logits=logits_BTV,
            seq_relationship_logits=order_B2,
            hidden_states=states.hidden_states,
        )


class ZenForSequenceClassification(ZenHeadModel, TextClassifier):
    """ZEN with a class for each text; the legacy label is for tokens, class 0 is a class here."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = self.make_base(config)
        self.add_classes()


class ZenForTokenClassification(ZenHeadModel, Classifier):
    """ZEN with a class for each token."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = self.make_base(config)
        self.add_classes()

    def arrange(self, hidden_BTH: Tensor, valid_ids: Tensor | None) -> Tensor:
        """Return the states that are classified; `valid_ids` is of use to ZEN1's legacy only."""
        del valid_ids
        return hidden_BTH

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        valid_ids: Tensor | None = None,
        **inputs: Any,
    ) -> TokenClassifierOutput:
        """Return the logits of the labels, [B, T, L].

        Args:
            input_ids: Ids, [B, T].
            labels: With them also the mean loss over tokens that are neither padding nor -100.
            attention_mask: 1 on tokens, 0 on padding, [B, T]; None: there is no padding.
            valid_ids: See `arrange`.
            **inputs: As of the base model.
        """
        states = self.bert(input_ids, attention_mask=attention_mask, **inputs)
        logits_BTL = self.classifier(self.dropout(self.arrange(states[0], valid_ids)))
        if labels is not None and attention_mask is not None and self.skips_padding:
            labels = labels.masked_fill(attention_mask == 0, _IGNORED)
        return TokenClassifierOutput(
            loss=self.mean_loss(logits_BTL, labels),
            logits=logits_BTL,
            hidden_states=states.hidden_states,
        )

    @property
    def skips_padding(self) -> bool:
        """Whether labels of padding are no targets whatever they are."""
        return True


class ZenForQuestionAnswering(ZenHeadModel):
    """ZEN that finds where an answer starts and ends."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = self.make_base(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **inputs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Return the logits of start and end at each token, both [B, T].

        Args:
            input_ids: Ids, [B, T].
            start_positions: First token of each answer, [B]; beyond the row is no target.
            end_positions: Last token; with both also the mean of their mean losses.
            **inputs: As of the base model.
        """
        states = self.bert(input_ids, **inputs)
        start_BT, end_BT = self.qa_outputs(states[0]).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            width = start_BT.shape[-1]
            losses = [
                functional.cross_entropy(logits, wanted.clamp(0, width), ignore_index=width)
                for logits, wanted in ((start_BT, start_positions), (end_BT, end_positions))
            ]
            loss = torch.stack(losses).mean()
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start_BT, end_logits=end_BT, hidden_states=states.hidden_states
        )
