# SPDX-License-Identifier: Apache-2.0
"""Heads that several architectures have alike: BERT's vocabulary, classes of texts and of tokens.

Used by `zen_heads`, `longformer` and `zhouwenwang`; the names of submodules are those of the
published checkpoints. A model takes a class from here beside its own base class and makes the
modules in its order. Never holds layers of a stack.

Shapes: B rows, T tokens of a row, P chosen tokens, H hidden, V vocabulary, L labels.

Source: Devlin et al. 2019 (BERT, arXiv:1810.04805); names and order of modules are those of
IDEA-CCNL/Fengshenbang-LM at c8fb7b8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput


def mean_loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    """Return the mean cross entropy, labels of -100 left out; None without labels."""
    if labels is None:
        return None
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


class Transform(nn.Module):
    """What stands before the vocabulary matrix: dense, activation, norm."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_PH: Tensor) -> Tensor:
        """Return states of the same shape."""
        return self.LayerNorm(self.activation(self.dense(hidden_PH)))


class Predictions(nn.Module):
    """Logits over the vocabulary."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_PH: Tensor) -> Tensor:
        """Return logits on the last axis."""
        return self.decoder(self.transform(hidden_PH))


class LanguageHead(nn.Module):
    """The vocabulary, and for pretraining whether a second sentence is the next one."""

    def __init__(self, config: Any, *, judges_sentences: bool = False) -> None:
        super().__init__()
        self.predictions = Predictions(config)
        if judges_sentences:
            self.seq_relationship = nn.Linear(config.hidden_size, 2)


class LanguageModel(PreTrainedModel):
    """A model whose `cls` is a `LanguageHead`, tied to the words of its `bert`."""

    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Predictions):
            init.zeros_(module.bias)

    def get_output_embeddings(self) -> nn.Module:
        """Return the matrix of the head."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the matrix of the head."""
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    def lm_logits(self, hidden_PH: Tensor) -> Tensor:
        """Return logits over the vocabulary, [..., V]."""
        return self.cls.predictions(hidden_PH)


class Classifier(PreTrainedModel):
    """What classes of texts and of tokens share."""

    def add_classes(self) -> None:
        """Make the head; to be called behind the base model's making."""
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)
        self.classifier = nn.Linear(self.config.hidden_size, self.config.num_labels)
        self.post_init()


class TextClassifier(Classifier):
    """A model with a class for each text, by the base model's pooler."""

    def forward(
        self, input_ids: Tensor, *, labels: Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Return the logits of the labels, [B, L]; with labels [B] also the mean loss."""
        states = self.base_model(input_ids, **inputs)
        logits_BL = self.classifier(self.dropout(states.pooler_output))
        return SequenceClassifierOutput(
            loss=mean_loss(logits_BL, labels),
            logits=logits_BL,
            hidden_states=states.hidden_states,
        )


class TokenClassifier(Classifier):
    """A model with a class for each token."""

    def forward(
        self, input_ids: Tensor, *, labels: Tensor | None = None, **inputs: Any
    ) -> TokenClassifierOutput:
        """Return the logits of the labels, [B, T, L]; with labels [B, T] also the mean loss."""
        states = self.base_model(input_ids, **inputs)
        logits_BTL = self.classifier(self.dropout(states[0]))
        return TokenClassifierOutput(
            loss=mean_loss(logits_BTL, labels),
            logits=logits_BTL,
            hidden_states=states.hidden_states,
        )
