# SPDX-License-Identifier: Apache-2.0
"""Family embed: one vector for a text, the mean of its tokens' last states, of length 1.

Shapes: B rows, T tokens, H hidden.

Source: mean pooling after Reimers and Gurevych 2019 (arXiv:1908.10084); special tokens count, as
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.encoding import encode_rows, group_by_length, model_inputs, pad_rows
from pyfsb.inference.protocol import Embedding, TextInput, as_inputs
from pyfsb.models.contrastive_loss import text_vectors
from pyfsb.schema import Schema

_NUM_DIGITS = 6


class Embedder:
    """An encoder without a head."""

    family: Family = Family.EMBED
    input_schema: ClassVar[type[Schema]] = TextInput

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
    ) -> None:
        """Keep a model in evaluation mode."""
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    @torch.inference_mode()
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Embedding]:
        """Return the vector of each text."""
        checked = as_inputs(inputs)
        rows = encode_rows(self._tokenizer, checked, max_tokens=self._max_tokens)
        vectors: dict[int, Tensor] = {}
        for group in group_by_length(rows):
            check_deadline()
            batch = pad_rows([rows[number] for number in group], pad_id=0)
            vectors_BH = self._encode(model_inputs(self._model, self._tokenizer, batch))
            vectors.update(zip(group, functional.normalize(vectors_BH).cpu(), strict=True))
        return [
            Embedding(
                vector=tuple(round(value, _NUM_DIGITS) for value in vectors[number].tolist()),
                is_truncated=row.is_truncated,
            )
            for number, row in enumerate(rows)
        ]

    def _encode(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return a vector a row: the text's place among images where the model has one."""
        if hasattr(self._model, "get_text_features"):
            vectors = text_vectors(self._model, inputs["input_ids"], inputs["attention_mask"])
            return vectors.float()
        mask_BT1 = inputs["attention_mask"][:, :, None]
        states_BTH: Tensor = self._model(**inputs)[0].float()
        return (states_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
