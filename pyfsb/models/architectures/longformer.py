# SPDX-License-Identifier: Apache-2.0
"""Erlangshen-Longformer (RoPE-Longformer) with its heads, `rope-longformer` to the Auto classes.

Found by this package. Never computes attention: that is `longformer_model`'s.

Shapes: B rows, T tokens of a row, P chosen tokens, H hidden, V vocabulary, L labels.

Source: heads of IDEA-CCNL/Fengshenbang-LM's longformer at c8fb7b8 for masked tokens, BERT's
elsewhere (none was published); which tokens they make global follows Beltagy et al. 2020
(arXiv:2004.05150), section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init
from transformers.modeling_outputs import MaskedLMOutput, QuestionAnsweringModelOutput

from pyfsb.config import Family
from pyfsb.models.architectures.bert_heads import TextClassifier, TokenClassifier, mean_loss
from pyfsb.models.architectures.longformer_model import (
    RopeLongformerConfig,
    RopeLongformerModel,
    RopeLongformerPreTrainedModel,
)
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.key_maps import KeyMap


class LanguageModelHead(nn.Module):
    """Logits over the vocabulary; its activation is gelu whatever `hidden_act` says."""

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_PH: Tensor) -> Tensor:
        """Return logits on the last axis."""
        return self.decoder(self.layer_norm(functional.gelu(self.dense(hidden_PH))))


class RopeLongformerForMaskedLM(RopeLongformerPreTrainedModel):
    """RoPE-Longformer that predicts masked tokens."""

    _tied_weights_keys = {
        "lm_head.decoder.weight": "longformer.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__(config)
        self.longformer = RopeLongformerModel(config, add_pooling_layer=False)
        self.lm_head = LanguageModelHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LanguageModelHead):
            init.zeros_(module.bias)

    def get_output_embeddings(self) -> nn.Module:
        """Return the matrix of the head."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the matrix of the head."""
        self.lm_head.decoder = new_embeddings
        self.lm_head.bias = new_embeddings.bias

    def lm_logits(self, hidden_PH: Tensor) -> Tensor:
        """Return logits over the vocabulary, [..., V]."""
        return self.lm_head(hidden_PH)

    def forward(
        self, input_ids: Tensor, *, labels: Tensor | None = None, **inputs: Any
    ) -> MaskedLMOutput:
        """Return logits at all tokens; with labels (-100: no target) also the mean loss."""
        states = self.longformer(input_ids, **inputs)
        logits_BTV = self.lm_logits(states[0])
        return MaskedLMOutput(
            loss=mean_loss(logits_BTV, labels),
            logits=logits_BTV,
            hidden_states=states.hidden_states,
        )


class RopeLongformerForSequenceClassification(RopeLongformerPreTrainedModel, TextClassifier):
    """RoPE-Longformer with a class for each text; its first token is global."""

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__(config)
        self.longformer = RopeLongformerModel(config, global_tokens="first")
        self.add_classes()


class RopeLongformerForTokenClassification(RopeLongformerPreTrainedModel, TokenClassifier):
    """RoPE-Longformer with a class for each token."""

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__(config)
        self.longformer = RopeLongformerModel(config, add_pooling_layer=False)
        self.add_classes()


class RopeLongformerForQuestionAnswering(RopeLongformerPreTrainedModel):
    """RoPE-Longformer that finds where an answer starts and ends; the question is global."""

    def __init__(self, config: RopeLongformerConfig) -> None:
        super().__init__(config)
        self.longformer = RopeLongformerModel(
            config, add_pooling_layer=False, global_tokens="question"
        )
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(self, input_ids: Tensor, **inputs: Any) -> QuestionAnsweringModelOutput:
        """Return the logits of start and end at each token, both [B, T]."""
        states = self.longformer(input_ids, **inputs)
        start_BT, end_BT = self.qa_outputs(states[0]).unbind(-1)
        return QuestionAnsweringModelOutput(
            start_logits=start_BT, end_logits=end_BT, hidden_states=states.hidden_states
        )


ARCHITECTURE = Architecture(
    config=RopeLongformerConfig,
    base=RopeLongformerModel,
    classes={
        Family.FILL_MASK: RopeLongformerForMaskedLM,
        Family.CLASSIFY: RopeLongformerForSequenceClassification,
        Family.PAIR: RopeLongformerForSequenceClassification,
        Family.TAG: RopeLongformerForTokenClassification,
        Family.ANSWER: RopeLongformerForQuestionAnswering,
    },
    key_map=KeyMap(
        dropped=(
            r".*embeddings\.position_embeddings\.weight",
            r".*embeddings\.position_ids",
            r".*attention\.self\.rope_emb\.div_term",
        )
    ),
)
