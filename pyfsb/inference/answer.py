# SPDX-License-Identifier: Apache-2.0
"""Family answer: the span of a text that answers a question.

A text longer than the model is read in windows that overlap; the best span of all of them counts.
Shapes: W windows of one input, T tokens.

Source: start and end scores after Devlin et al. 2019, section 4.2; windows with an overlap of a
quarter after the CMRC 2018 baseline's 512 / 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.encoding import EncodedRow, encode_rows, model_inputs, pad_rows
from pyfsb.inference.protocol import Answer, TextInput, as_inputs
from pyfsb.schema import Schema

MAX_ANSWER_TOKENS = 64
_OVERLAP_RATIO = 0.25
_WINDOWS_AT_ONCE = 8


class Answerer:
    """An extractive question answering model."""

    family: Family = Family.ANSWER
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
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Answer]:
        """Return the answer to each question.

        Args:
            inputs: `text` is the question, `text_pair` the text that holds the answer.
        """
        checked = as_inputs(inputs, needs_pair=True)
        return [self._answer(item, position) for position, item in enumerate(checked)]

    def _answer(self, item: TextInput, position: int) -> Answer:
        passage = item.text_pair or ""
        windows, firsts = self._windows(item.text, passage, position)
        best = (float("-inf"), 0, 0)
        for start in range(0, len(windows), _WINDOWS_AT_ONCE):
            check_deadline()
            some = windows[start : start + _WINDOWS_AT_ONCE]
            batch = pad_rows(some, pad_id=0)
            output = self._model(**model_inputs(self._model, self._tokenizer, batch))
            logs = (output.start_logits.float().cpu(), output.end_logits.float().cpu())
            for number, row in enumerate(some):
                offset = firsts[start + number]
                found = _best_span(row, logs[0][number], logs[1][number])
                best = max(best, (found[0], found[1] + offset, found[2] + offset))
        score, begin, end = best
        return Answer(
            text=passage[begin:end], start=begin, end=end, score=round(score, 6),
            is_truncated=False,
        )  # fmt: skip

    def _windows(
        self, question: str, passage: str, position: int
    ) -> tuple[list[EncodedRow], list[int]]:
        """Return the rows of a passage's windows and the first character of each."""
        windows: list[EncodedRow] = []
        firsts: list[int] = []
        first = 0
        while True:
            item = TextInput(text=question, text_pair=passage[first:])
            row = encode_rows(
                self._tokenizer, [item], max_tokens=self._max_tokens, keeps_characters=True,
                cuts_second=True,
            )[0]  # fmt: skip
            places = _passage_places(row)
            if not places:
                raise ConfigError(
                    f"input {position}: the question fills the model's {self._max_tokens} tokens; "
                    "expected a shorter one"
                )
            windows.append(row)
            firsts.append(first)
            if not row.is_truncated:
                return windows, firsts
            # On behind three quarters of this window, always at least by a token.
            kept = places[int(len(places) * (1 - _OVERLAP_RATIO))]
            first += max(row.offsets[kept][0], row.offsets[places[0]][1])


def _passage_places(row: EncodedRow) -> list[int]:
    """Return the places of a row's passage tokens."""
    return [
        place
        for place, (start, end) in enumerate(row.offsets)
        if end > start and row.sequences[place] == 1
    ]


def _best_span(row: EncodedRow, start_T: Tensor, end_T: Tensor) -> tuple[float, int, int]:
    """Return score, first character and end of the best span, probabilities over the passage."""
    places = torch.tensor(_passage_places(row))
    starts, ends = start_T[places].log_softmax(0), end_T[places].log_softmax(0)
    scores = starts[:, None] + ends[None, :]
    number = torch.arange(len(places))
    length = number[None, :] - number[:, None]
    scores = scores.masked_fill((length < 0) | (length >= MAX_ANSWER_TOKENS), float("-inf"))
    best = int(scores.argmax())
    first, last = divmod(best, len(places))
    return (
        float(scores[first, last].exp()),
        row.offsets[int(places[first])][0],
        row.offsets[int(places[last])][1],
    )
