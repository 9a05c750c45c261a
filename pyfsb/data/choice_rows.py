# SPDX-License-Identifier: Apache-2.0
"""Rows of questions with options (UniMC), from files in its own form and from labelled rows.

Called by training and evaluation; `pyfsb.objectives.multiple_choice` encodes what they become.
Never imports torch.

Source: the jsonl of fengshen/examples/unimc of Fengshenbang-LM c8fb7b8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from pydantic import ConfigDict, model_validator

from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import Example
from pyfsb.data.normalizing import normalise_text
from pyfsb.data.row_parsing import load_rows
from pyfsb.errors import ConfigError, did_you_mean, nearest_names
from pyfsb.objectives.multiple_choice import ChoiceSample
from pyfsb.schema import Schema

PAIR_PLACE: Final = "{pair}"
"""In an option: where the second text goes."""


class ChoiceRow(Schema):
    """One question; keys that are not here are passed over, published files have several."""

    model_config = ConfigDict(extra="ignore")

    texta: str
    """What the question is about."""
    textb: str = ""
    """A second text."""
    question: str = ""
    """The question."""
    choice: tuple[str, ...]
    """The options."""
    answer: str | None = None
    """The right option. None (or empty) where there is no label."""
    label: int | None = None
    """Its number; alone, `answer` decides."""
    id: str | int = ""
    """Name of the row."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if len(self.choice) < 2:
            raise ValueError(f"choice has {len(self.choice)} options; expected two or more")
        for number, option in enumerate(self.choice):
            if not option.strip():
                raise ValueError(f"choice.{number} = {option!r} is empty")
            if option in self.choice[:number]:
                raise ValueError(f"choice.{number} = {option!r} stands twice")
        if self.answer and self.answer not in self.choice:
            near = did_you_mean(nearest_names(self.answer, self.choice))
            raise ValueError(f"answer = {self.answer!r} is not one of choice{near}")
        if self.label is not None and not 0 <= self.label < len(self.choice):
            raise ValueError(f"label = {self.label} of {len(self.choice)} options")
        if self.answer and self.label is not None and self.choice[self.label] != self.answer:
            raise ValueError(
                f"label = {self.label} is {self.choice[self.label]!r}, answer = {self.answer!r}"
            )
        return self

    @property
    def number(self) -> int | None:
        """Number of the right option; None where there is no label."""
        if self.label is not None:
            return self.label
        return self.choice.index(self.answer) if self.answer else None

    def to_sample(self) -> ChoiceSample:
        """Return what the objective takes, in the spelling that prediction reads."""
        return ChoiceSample(
            text=normalise_text(self.texta),
            text_pair=normalise_text(self.textb),
            question=normalise_text(self.question),
            options=tuple(normalise_text(option) for option in self.choice),
            answer=self.number,
        )


def load_choice_rows(path: Path) -> list[ChoiceRow]:
    """Read a file of questions.

    Raises:
        DataError: Names up to 20 wrong rows, each with its line, field and value.
    """
    return load_rows(path, lambda _: ChoiceRow)


def choices_of(
    examples: Sequence[Example],
    task: TaskSpec,
    *,
    titles: Mapping[str, str] | None = None,
    question: str = "",
) -> list[ChoiceSample]:
    """Turn labelled rows into questions: each label of the task is an option.

    Args:
        examples: Rows of a classification or pair task, with or without labels.
        task: Names the labels.
        titles: The option of each label; `{pair}` in one stands for the second text, which is then
            not given a second time. None takes the labels themselves.
        question: What is asked about every row.

    Raises:
        ConfigError: The task is another one, or a label has no title of its own.
    """
    if task.family not in (Family.CLASSIFY, Family.PAIR):
        raise ConfigError(
            f"{task.name}: rows of family {task.family.value} have no one label; questions are "
            "made of families classify and pair"
        )
    options = [(titles or {}).get(label, label) for label in task.labels]
    for number, option in enumerate(options):
        if option in options[:number]:
            first = task.labels[options.index(option)]
            raise ConfigError(
                f"{task.name}: labels {first!r} and {task.labels[number]!r} both become {option!r}"
            )
    has_place = any(PAIR_PLACE in option for option in options)
    return [
        ChoiceSample(
            text=example.text,
            text_pair="" if has_place else example.text_pair or "",
            question=question,
            options=tuple(
                option.replace(PAIR_PLACE, example.text_pair or "") for option in options
            ),
            answer=None if example.label is None else task.labels.index(example.label),
        )
        for example in examples
    ]
