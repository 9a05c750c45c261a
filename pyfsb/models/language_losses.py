# SPDX-License-Identifier: Apache-2.0
"""Losses of language models as modules, and the logits of their vocabulary heads.

Shapes: B documents, N tokens of all documents end to end, M tokens of decoder documents, T tokens
of a padded row, P predicted positions, V vocabulary, L labels, H hidden, G n-grams.

The vocabulary head runs at predicted positions only. Made by `pyfsb.models.heads.build_loss`;
prediction calls `logits_at`.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from pyfsb.errors import ConfigError
from pyfsb.models import unpadded
from pyfsb.models.cross_entropy import cross_entropy_sum
from pyfsb.models.document_loss import DocumentLoss, pad_flat

_BERT_HEADS: Final = ("bert", "megatron-bert", "deberta-v2", "ernie", "roformer", "mobilebert")
_PLAIN_HEADS: Final = ("gpt2", "t5", "mt5", "roberta", "llama", "bloom", "openai-gpt")


def vocabulary_logits(model: nn.Module, hidden_PH: Tensor) -> Tensor:
    """Return the logits of hidden states over the vocabulary, [P, V].

    Args:
        model: A language model, masked, causal or encoder-decoder.
        hidden_PH: Last hidden states at the wanted positions.

    Raises:
        ConfigError: No vocabulary head is known for its architecture.
    """
    inner: Any = unpadded.unwrap(model)
    kind = inner.config.model_type
    if hasattr(inner, "lm_logits"):
        return inner.lm_logits(hidden_PH)
    if kind == "deberta-v2" and not inner.legacy:
        return inner.lm_predictions(hidden_PH, inner.deberta.embeddings.word_embeddings)
    if kind in _BERT_HEADS:
        # Of a model that judges the order of sentences too, the vocabulary's part of the head.
        return getattr(inner.cls, "predictions", inner.cls)(hidden_PH)
    if kind == "albert":
        return inner.predictions(hidden_PH)
    if kind == "t5" and inner.config.scale_decoder_outputs:
        return inner.lm_head(hidden_PH * inner.config.d_model**-0.5)
    if kind in _PLAIN_HEADS:
        return inner.lm_head(hidden_PH)
    if kind in ("bart", "pegasus"):
        return inner.lm_head(hidden_PH) + inner.final_logits_bias
    raise ConfigError(f"{kind}: no vocabulary head known; add it to vocabulary_logits")


def order_logits(model: nn.Module, first_BH: Tensor) -> Tensor:
    """Return the logits of whether sentences are in order or swapped, [B, 2].

    Args:
        model: A masked language model that judges the order of sentences too.
        first_BH: Last hidden state of the first token of each document.
    """
    inner: Any = unpadded.unwrap(model)
    base = inner.base_model
    if inner.config.model_type == "albert":
        pooled_BH = base.pooler_activation(base.pooler(first_BH))
        return inner.sop_classifier(pooled_BH)
    return inner.cls.seq_relationship(base.pooler(first_BH[:, None]))


def logits_at(
    model: PreTrainedModel,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    positions_P: Tensor,
    **others: Tensor,
) -> Tensor:
    """Return vocabulary logits at chosen positions of padded rows only.

    Args:
        model: A masked or causal language model.
        input_ids_BT: Ids, [B, T].
        attention_mask_BT: 1 on tokens, [B, T].
        positions_P: Positions row x T + column, [P].
        others: What else the model takes: types of tokens, n-grams.

    Returns:
        Logits [P, V], equal to the full forward pass at these positions.

    Raises:
        ConfigError: No vocabulary head is known for its architecture.
    """
    hidden_BTH = model.base_model(
        input_ids=input_ids_BT, attention_mask=attention_mask_BT, **others
    )[0]
    hidden_PH = hidden_BTH.flatten(0, 1).index_select(0, positions_P)
    return vocabulary_logits(model, hidden_PH)


class LanguageModelLoss(DocumentLoss):
    """Cross entropy of predicted tokens, masked or causal, and of the order of sentences."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
        token_type_ids: Tensor | None = None,
        sentence_labels: Tensor | None = None,
        sentence_weights: Tensor | None = None,
        **ngrams: Tensor,
    ) -> Tensor:
        """Return the sum of the losses, in nats.

        Args:
            input_ids: Documents end to end, [N].
            lengths: Tokens of each, [B].
            target_positions: Where to predict, [P].
            target_ids: What is right there, [P].
            token_type_ids: Types of the tokens, [N].
            sentence_labels: Whether a document's sentences are swapped, [B].
            sentence_weights: How many predicted tokens each label counts as, [B]; 0 leaves out.
            ngrams: N-grams of the documents, of models that read them.
        """
        positions = target_positions
        if sentence_labels is not None:
            starts_B = lengths.cumsum(0) - lengths
            positions = torch.cat([target_positions, starts_B.to(target_positions.device)])
        hidden_PH = self.hidden(input_ids, lengths, positions, token_type_ids, ngrams)
        num_targets = target_positions.numel()
        logits_PV = vocabulary_logits(self.model, hidden_PH[:num_targets])
        loss = cross_entropy_sum(logits_PV, target_ids)
        if sentence_labels is None:
            return loss
        assert sentence_weights is not None
        return loss + self._order_loss(hidden_PH[num_targets:], sentence_labels, sentence_weights)

    def _order_loss(self, first_BH: Tensor, labels_B: Tensor, weights_B: Tensor) -> Tensor:
        logits_B2 = order_logits(self.model, first_BH)
        losses_B = functional.cross_entropy(logits_B2.float(), labels_B, reduction="none")
        return (losses_B * weights_B).sum()


class PairLoss(DocumentLoss):
    """Cross entropy of an encoder-decoder's next tokens."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        decoder_ids: Tensor,
        decoder_lengths: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
    ) -> Tensor:
        """Return the sum of the losses at the target positions (in `decoder_ids`), in nats."""
        if self._is_padded:
            hidden_MH = self._padded_pairs(input_ids, lengths, decoder_ids, decoder_lengths)
        else:
            hidden_MH = unpadded.encode_pair(
                self.model,
                input_ids,
                lengths,
                decoder_ids,
                decoder_lengths,
                checkpoints_activations=self._checkpoints_activations,
            )
        logits_PV = vocabulary_logits(self.model, hidden_MH.index_select(0, target_positions))
        return cross_entropy_sum(logits_PV, target_ids)

    def _padded_pairs(
        self, ids_N: Tensor, lengths_B: Tensor, decoder_ids_M: Tensor, decoder_lengths_B: Tensor
    ) -> Tensor:
        ids_BT, mask_BT = pad_flat(ids_N, lengths_B, self._pad_id)
        decoder_ids_BT, decoder_mask_BT = pad_flat(decoder_ids_M, decoder_lengths_B, self._pad_id)
        base: Any = unpadded.unwrap(self.model).base_model
        encoded_BTH = base.encoder(input_ids=ids_BT, attention_mask=mask_BT)[0]
        hidden_BTH: Tensor = base.decoder(
            input_ids=decoder_ids_BT,
            attention_mask=decoder_mask_BT,
            encoder_hidden_states=encoded_BTH,
            encoder_attention_mask=mask_BT,
        )[0]
        return hidden_BTH[decoder_mask_BT.bool()]
