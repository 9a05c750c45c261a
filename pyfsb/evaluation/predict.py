# SPDX-License-Identifier: Apache-2.0
"""Answers for labelled and unlabelled rows, shared out over the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyfsb.data.labelled import Entity, Example, entities_text
from pyfsb.errors import DataError
from pyfsb.inference.protocol import Classification, Prediction, Predictor, Tagging, TextInput
from pyfsb.training.distributed import ProcessGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answered for one row."""

    value: str
    """The label, or the entities as one text; comparable with `Example.gold`."""
    is_truncated: bool
    """True: the text was cut."""


def answer_rows(
    predictor: Predictor, examples: Sequence[Example], group: ProcessGroup
) -> list[Answer]:
    """Return an answer for each row, in order, on every rank; each rank computes its share."""
    mine = examples[group.rank :: group.size]
    inputs = [TextInput(text=row.text, text_pair=row.text_pair) for row in mine]
    shares = group.gather([_answer(item) for item in predictor.predict(inputs)])
    answers: list[Answer | None] = [None] * len(examples)
    for rank, share in enumerate(shares):
        answers[rank :: group.size] = share
    return [answer for answer in answers if answer is not None]


def _answer(prediction: Prediction) -> Answer:
    if isinstance(prediction, Classification):
        return Answer(value=prediction.label, is_truncated=prediction.is_truncated)
    if isinstance(prediction, Tagging):
        spans = [Entity(start=e.start, end=e.end, type=e.type) for e in prediction.entities]
        return Answer(value=entities_text(spans), is_truncated=prediction.is_truncated)
    raise DataError(f"a {type(prediction).__name__} cannot be scored against a label")
