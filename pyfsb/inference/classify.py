# SPDX-License-Identifier: Apache-2.0
"""Family classify: one text, one label. Family pair shares the decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.encoding import encode_rows, group_by_length, model_inputs, pad_rows
from pyfsb.inference.protocol import Classification, TextInput, as_inputs
from pyfsb.schema import Schema


class Classifier:
    """A sequence classification model."""

    family: Family = Family.CLASSIFY
    input_schema: ClassVar[type[Schema]] = TextInput
    needs_pair: ClassVar[bool] = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
    ) -> None:
        """Keep a model in evaluation mode; its config names the labels."""
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._labels = [model.config.id2label[number] for number in range(model.config.num_labels)]

    @torch.inference_mode()
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Classification]:
        """Return the label of each input."""
        checked = as_inputs(inputs, needs_pair=self.needs_pair)
        if not checked:
            return []
        rows = encode_rows(self._tokenizer, checked, max_tokens=self._max_tokens)
        probabilities: dict[int, Tensor] = {}
        for group in group_by_length(rows):
            check_deadline()
            batch = pad_rows([rows[number] for number in group], pad_id=self._pad_id)
            tensors = model_inputs(self._model, self._tokenizer, batch)
            logits_BL = self._model(**tensors).logits.float()
            probabilities.update(zip(group, logits_BL.softmax(-1).cpu(), strict=True))
        return [
            decode_label(probabilities[number].tolist(), self._labels, row.is_truncated)
            for number, row in enumerate(rows)
        ]

    @property
    def _pad_id(self) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(str(self._tokenizer.pad_token)))


def decode_label(
    probabilities: Sequence[float], labels: Sequence[str], is_truncated: bool
) -> Classification:
    """Return the classification that label probabilities mean; ties go to the earlier label."""
    best = max(range(len(labels)), key=lambda number: (probabilities[number], -number))
    scores = {label: round(value, 6) for label, value in zip(labels, probabilities, strict=True)}
    return Classification(
        label=labels[best], score=scores[labels[best]], scores=scores, is_truncated=is_truncated
    )
