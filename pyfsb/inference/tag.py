# SPDX-License-Identifier: Apache-2.0
"""Family tag: the entities of a text, by one BIO label a token.

Shapes: B rows, T tokens, L labels.

Source: BIO after Ramshaw and Marcus 1995; an I- without its B- opens a span (our choice).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.encoding import (
    EncodedRow,
    encode_rows,
    group_by_length,
    model_inputs,
    pad_rows,
)
from pyfsb.inference.protocol import FoundEntity, Tagging, TextInput, as_inputs
from pyfsb.schema import Schema

OUTSIDE = "O"


class Tagger:
    """A token classification model."""

    family: Family = Family.TAG
    input_schema: ClassVar[type[Schema]] = TextInput

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
    ) -> None:
        """Keep a model in evaluation mode; its config names the BIO labels."""
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._labels = [model.config.id2label[number] for number in range(model.config.num_labels)]

    @torch.inference_mode()
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Tagging]:
        """Return the entities of each text."""
        checked = as_inputs(inputs)
        if not checked:
            return []
        rows = encode_rows(
            self._tokenizer, checked, max_tokens=self._max_tokens, keeps_characters=True
        )
        pad_id = int(self._tokenizer.convert_tokens_to_ids(str(self._tokenizer.pad_token)))
        tags: dict[int, list[str]] = {}
        for group in group_by_length(rows):
            check_deadline()
            batch = pad_rows([rows[number] for number in group], pad_id=pad_id)
            tensors = model_inputs(self._model, self._tokenizer, batch)
            best_BT = self._model(**tensors).logits.argmax(-1).cpu().tolist()
            for number, best_T in zip(group, best_BT, strict=True):
                tags[number] = [self._labels[best] for best in best_T]
        return [
            Tagging(
                entities=tuple(decode_entities(checked[number].text, row, tags[number])),
                is_truncated=row.is_truncated,
            )
            for number, row in enumerate(rows)
        ]


def bio_labels(types: Iterable[str]) -> list[str]:
    """Return the BIO labels of entity types: O, then B- and I- of each."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]


def encode_entities(
    row: EncodedRow, spans: Iterable[tuple[int, int, str]], labels: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return positions and BIO label ids of a row's real tokens.

    Args:
        row: Tokens with offsets.
        spans: Gold entities (start, end, type), end exclusive.
        labels: From `bio_labels`.
    """
    number_of = {label: number for number, label in enumerate(labels)}
    positions = [place for place, (start, end) in enumerate(row.offsets) if end > start]
    tags = {place: OUTSIDE for place in positions}
    for start, end, kind in spans:
        inside = [place for place in positions if start <= row.offsets[place][0] < end]
        for count, place in enumerate(inside):
            tags[place] = f"{'I' if count else 'B'}-{kind}"
    return positions, [number_of[tags[place]] for place in positions]


def decode_entities(text: str, row: EncodedRow, tags: Sequence[str]) -> list[FoundEntity]:
    """Return the spans that the tags of a row's tokens mean."""
    spans: list[tuple[int, int, str]] = []
    is_open = False
    for (start, end), tag in zip(row.offsets, tags, strict=False):
        if end <= start:
            continue
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and is_open and spans[-1][2] == kind:
            spans[-1] = (spans[-1][0], end, kind)
        elif prefix in ("B", "I"):
            spans.append((start, end, kind))
        is_open = prefix in ("B", "I")
    return [
        FoundEntity(start=start, end=end, type=kind, text=text[start:end])
        for start, end, kind in spans
    ]
