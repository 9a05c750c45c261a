# SPDX-License-Identifier: Apache-2.0
"""Family choose: a text, a question and options in, the probability of each option out (UniMC).

Any number of options fits as long as one row does: options share positions, so even 119 of them
leave the text its room. What is too long is named, never cut, but for the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.data.normalizing import normalise_text
from pyfsb.errors import ConfigError, DataError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.protocol import as_list, as_schema
from pyfsb.models.row_losses import choice_logits
from pyfsb.models.row_objectives import build_choice_objective, make_tokenize
from pyfsb.objectives.multiple_choice import ChoiceSample, EncodedChoice
from pyfsb.schema import Schema

BATCH_CELLS: Final = 1 << 22
"""Cells of the squares of one forward pass at most, unless one row alone is longer."""


class ChoiceInput(Schema):
    """One question."""

    text: str
    """What the question is about."""
    text_pair: str | None = None
    """A second text."""
    question: str = ""
    """The question; may be left out where the options say it all."""
    choices: tuple[str, ...]
    """Two or more options, all different."""


class Choice(Schema):
    """The answer to a question."""

    choice: str
    """The most likely option."""
    index: int
    """Its number, from 0."""
    score: float
    """Its probability as the model sees it, in [0, 1]."""
    scores: dict[str, float]
    """The same for every option, in their order."""
    is_truncated: bool
    """True: a text was cut to the model's length."""


class Chooser:
    """A masked language model that says yes at the right option."""

    family: Family = Family.CHOOSE
    input_schema: ClassVar[type[Schema]] = ChoiceInput

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
    ) -> None:
        """Keep a model in evaluation mode.

        Raises:
            ConfigError: The vocabulary has no words for yes and no.
        """
        self.name = name
        self._model = model.eval()
        self._tokenize = make_tokenize(tokenizer)
        self._objective = build_choice_objective(model.config, tokenizer, max_tokens=max_tokens)

    @torch.inference_mode()
    def predict(self, inputs: Sequence[ChoiceInput]) -> list[Choice]:
        """Return the answer to each question, in their order.

        Raises:
            ConfigError: A question does not fit the model; names its position and what is wrong.
            OutOfTimeError: A deadline was set and has passed.
        """
        asked = [as_schema(item, ChoiceInput, n) for n, item in enumerate(as_list(inputs))]
        rows = [self._encode(position, item) for position, item in enumerate(asked)]
        scores: dict[int, list[float]] = {}
        for group in _group(rows):
            check_deadline()
            arrays = self._objective.collate_inputs([rows[number] for number in group])
            device = self._model.device
            batch = {name: torch.from_numpy(a).to(device) for name, a in arrays.items()}
            logits_BS = choice_logits(self._model, batch)
            scores.update(zip(group, logits_BS.softmax(-1).tolist(), strict=True))
        return [
            decode_choice(item.choices, scores[number], rows[number].is_truncated)
            for number, item in enumerate(asked)
        ]

    def _encode(self, position: int, item: ChoiceInput) -> EncodedChoice:
        if not item.text.strip():
            raise ConfigError(f"input {position}: the text is empty")
        sample = ChoiceSample(
            text=normalise_text(item.text),
            text_pair=normalise_text(item.text_pair or ""),
            question=normalise_text(item.question),
            options=tuple(normalise_text(option) for option in item.choices),
        )
        try:
            return self._objective.encode(sample, self._tokenize)
        except DataError as exc:
            raise ConfigError(f"input {position}: {exc}") from None


def decode_choice(choices: Sequence[str], scores: Sequence[float], is_truncated: bool) -> Choice:
    """Return the answer that probabilities mean; ties go to the earlier option.

    Args:
        choices: The options.
        scores: Their probabilities; more than the options have are padding.
        is_truncated: Whether a text was cut.
    """
    best = max(range(len(choices)), key=lambda number: (scores[number], -number))
    named = {choice: round(score, 6) for choice, score in zip(choices, scores, strict=False)}
    return Choice(
        choice=choices[best],
        index=best,
        score=named[choices[best]],
        scores=named,
        is_truncated=is_truncated,
    )


def _group(rows: Sequence[EncodedChoice]) -> Iterator[list[int]]:
    """Yield the numbers of rows that make one batch: sorted by length, bounded in cells."""
    group: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: rows[number].ids_T.size):
        if group and (len(group) + 1) * rows[number].ids_T.size ** 2 > BATCH_CELLS:
            yield group
            group = []
        group.append(number)
    if group:
        yield group
