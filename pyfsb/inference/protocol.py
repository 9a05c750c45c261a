# SPDX-License-Identifier: Apache-2.0
"""What every predictor takes and gives; the results cross the wire as they are.

Evaluation, serving and `pyfsb.load` all call `predict`, so they give the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol, TypeAlias, TypeVar

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.schema import Schema, parse

S = TypeVar("S", bound=Schema)
_MAX_SHOWN: Final = 60
"""Characters of a wrong input in an error at most."""


class TextInput(Schema):
    """One thing to predict on."""

    text: str
    """The (first) text; family fill_mask: with one or more `[MASK]`."""
    text_pair: str | None = None
    """The second text; family pair only."""


class Classification(Schema):
    """One label for a text or a pair."""

    label: str
    """The most likely label."""
    score: float
    """Its probability as the model sees it (n-gram models: uncalibrated), in [0, 1]."""
    scores: dict[str, float]
    """The same for every label."""
    is_truncated: bool
    """True: the text was cut to the model's length."""


class FoundEntity(Schema):
    """A typed span that a tagger found."""

    start: int
    """First character, counted from 0."""
    end: int
    """One past the last character."""
    type: str
    """Entity type."""
    text: str
    """The characters of the span."""


class Tagging(Schema):
    """The entities of a text."""

    entities: tuple[FoundEntity, ...]
    """In the order of the text; they do not overlap."""
    is_truncated: bool
    """True: the end of the text was not looked at."""


class Candidate(Schema):
    """A token that may stand at a [MASK]."""

    token: str
    """The piece, as in the vocabulary."""
    score: float
    """Its probability, in [0, 1]."""


class FilledMask(Schema):
    """A text with its masks filled."""

    text: str
    """The text with the best token at each mask."""
    masks: tuple[tuple[Candidate, ...], ...]
    """For each mask the best tokens, best first."""
    is_truncated: bool
    """True: the end of the text was not looked at."""


class Generation(Schema):
    """A continued text."""

    text: str
    """The continuation, without the prompt."""
    num_tokens: int
    """Tokens of it."""
    is_truncated: bool
    """True: the beginning of the prompt was cut to the model's length."""


class Embedding(Schema):
    """A text as a vector."""

    vector: tuple[float, ...]
    """Of length 1; the cosine of two is their product."""
    is_truncated: bool
    """True: the end of the text was not looked at."""


class Answer(Schema):
    """A span of a text that answers a question."""

    text: str
    """The characters of the span."""
    start: int
    """First character in the text, counted from 0."""
    end: int
    """One past the last character."""
    score: float
    """Its probability among the spans of its window, in [0, 1]."""
    is_truncated: bool
    """Always False: long texts are read in windows."""


Prediction: TypeAlias = Schema
"""What a predictor returns for one input; families with inputs and results of their own (rewrite,
choose, extract, image_text …) define them beside their predictor."""


class Predictor(Protocol):
    """A loaded model."""

    family: Family
    """What it takes and gives."""
    input_schema: ClassVar[type[Schema]]
    """What one input is, as JSON; of `TextInput` a text alone does."""
    name: str
    """Name for messages and servers."""

    def predict(self, inputs: Sequence[Any]) -> Sequence[Prediction]:
        """Return one result an input, in their order.

        Args:
            inputs: Texts, pairs of texts, or `TextInput`s; of some families their own inputs.

        Raises:
            ConfigError: An input does not fit the family; names its position.
            OutOfTimeError: A deadline was set (`pyfsb.inference.deadline`) and has passed.
        """


def as_list(inputs: Sequence[Any]) -> Sequence[Any]:
    """Return inputs that are several; a text alone would be taken for its characters.

    Raises:
        ConfigError: They are one text, or the fields of one input.
    """
    if isinstance(inputs, str | bytes | Mapping | Schema):
        raise ConfigError(f"inputs = {_shown(inputs)}: expected a list of inputs")
    return inputs


def as_schema(item: object, schema: type[S], position: int) -> S:
    """Return an input with fields, given as such or as a mapping.

    Raises:
        ConfigError: It is neither, or its fields are wrong; names the position.
    """
    if isinstance(item, schema):
        return item
    if isinstance(item, Mapping):
        return parse(schema, item, source=f"input {position}")
    fields = ", ".join(schema.model_fields)
    raise ConfigError(
        f"input {position} = {_shown(item)}: expected {schema.__name__} or its fields ({fields})"
    )


def _as_input(item: object, position: int) -> TextInput:
    if isinstance(item, TextInput):
        return item
    if isinstance(item, str):
        return TextInput(text=item)
    if isinstance(item, Mapping):
        return as_schema(item, TextInput, position)
    if isinstance(item, tuple) and len(item) == 2 and all(isinstance(text, str) for text in item):
        return TextInput(text=item[0], text_pair=item[1])
    raise ConfigError(
        f"input {position} = {_shown(item)}: expected a text, a pair of texts, or a TextInput"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def as_inputs(
    inputs: Sequence[str | tuple[str, str] | TextInput], *, needs_pair: bool = False
) -> list[TextInput]:
    """Return inputs in one form.

    Raises:
        ConfigError: A text is empty or none, or a second one is missing or too many; names the
            position.
    """
    result: list[TextInput] = []
    for position, given in enumerate(as_list(inputs)):
        item = _as_input(given, position)
        if not item.text.strip():
            raise ConfigError(f"input {position}: the text is empty")
        if needs_pair and not (item.text_pair or "").strip():
            raise ConfigError(
                f"input {position}: this model compares two texts; give text_pair too"
            )
        if not needs_pair and item.text_pair is not None:
            raise ConfigError(f"input {position}: this model takes one text; leave text_pair out")
        result.append(item)
    return result
