# SPDX-License-Identifier: Apache-2.0
"""Losses of labelled documents as modules: one label a document, or one a token.

Shapes: B documents, N tokens of all documents end to end, M tokens of decoder documents, T tokens
of a padded row, P predicted positions, V vocabulary, L labels, H hidden, G n-grams.

Made by `pyfsb.models.heads.build_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from pyfsb.models import unpadded
from pyfsb.models.cross_entropy import cross_entropy_sum
from pyfsb.models.document_loss import DocumentLoss, pad_flat

_FIRST_TOKEN_KINDS: Final = (
    "bert", "megatron-bert", "deberta-v2", "rope-longformer", "zhouwenwang",
)  # fmt: skip
_LAST_TOKEN_KINDS: Final = ("gpt2",)


class ClassificationLoss(DocumentLoss):
    """Cross entropy of one label a document."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        target_ids: Tensor,
        token_type_ids: Tensor | None = None,
        **ngrams: Tensor,
    ) -> Tensor:
        """Return the sum of the documents' losses, in nats."""
        logits_BL = self.logits(input_ids, lengths, token_type_ids, ngrams)
        return cross_entropy_sum(logits_BL, target_ids)

    def logits(
        self,
        input_ids_N: Tensor,
        lengths_B: Tensor,
        token_type_ids_N: Tensor | None = None,
        ngrams: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the logits of the labels, [B, L]."""
        inner: Any = unpadded.unwrap(self.model)
        kind = inner.config.model_type
        if kind in _FIRST_TOKEN_KINDS + _LAST_TOKEN_KINDS:
            ends_B = lengths_B.to(input_ids_N.device).cumsum(0)
            is_last = kind in _LAST_TOKEN_KINDS
            positions_B = ends_B - (1 if is_last else lengths_B.to(input_ids_N.device))
            hidden_BH = self.hidden(input_ids_N, lengths_B, positions_B, token_type_ids_N)
            if is_last:
                return inner.score(hidden_BH)
            pooler = inner.pooler if kind == "deberta-v2" else inner.base_model.pooler
            return inner.classifier(inner.dropout(pooler(hidden_BH[:, None])))
        # The heads of encoder-decoders look at rows of their own making, other models bring theirs.
        ids_BT, mask_BT = pad_flat(input_ids_N, lengths_B, self._pad_id)
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if token_type_ids_N is not None and self._has_types:
            inputs["token_type_ids"] = pad_flat(token_type_ids_N, lengths_B, 0)[0]
        if ngrams:
            inputs |= inner.pad_ngrams(lengths=lengths_B, **ngrams)
        return inner(**inputs).logits


class TaggingLoss(DocumentLoss):
    """Cross entropy of one label a token."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        target_positions: Tensor,
        target_ids: Tensor,
        token_type_ids: Tensor | None = None,
        **ngrams: Tensor,
    ) -> Tensor:
        """Return the sum of the losses at the target positions, in nats."""
        hidden_PH = self.hidden(input_ids, lengths, target_positions, token_type_ids, ngrams)
        inner: Any = unpadded.unwrap(self.model)
        logits_PL = inner.classifier(inner.dropout(hidden_PH))
        return cross_entropy_sum(logits_PL, target_ids)
