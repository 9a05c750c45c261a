# SPDX-License-Identifier: Apache-2.0
"""Rows of texts with spans and relations (UBERT, UniEX), from files and from labelled rows.

Called by training and evaluation; `pyfsb.objectives.extraction_ubert` and `extraction_uniex`
encode what they become. Ends of spans are inclusive in files, exclusive elsewhere. Never imports
torch.

Source: the jsonl of fengshen/examples/{ubert,uniex} of Fengshenbang-LM c8fb7b8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from pydantic import ConfigDict, model_validator

from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import Example
from pyfsb.data.row_parsing import load_rows
from pyfsb.objectives.extraction import (
    CLASSIFICATION_TASK,
    PAIR_MARK,
    ExtractionSample,
    GoldRelation,
    GoldSpan,
)
from pyfsb.schema import Json, Schema

EXTRACTION_TASK: Final = "抽取任务"
"""UBERT's task of spans."""
ENTITY_TASK: Final = "实体识别"
"""UBERT's subtask and UniEX's task of entities."""
RELATION_TASK: Final = "关系抽取"
"""UniEX's task of relations."""


class _Row(Schema):
    model_config = ConfigDict(extra="ignore")


class UbertEntity(_Row):
    """The places of a name."""

    entity_name: str = ""
    """The characters; empty where nothing is said about them."""
    entity_idx: tuple[tuple[int, ...], ...] = ()
    """First and last character of each place; empty lists count as none."""


class UbertChoice(_Row):
    """A kind, and what is of it."""

    entity_type: str
    """Name of the kind, a question or a label."""
    label: int = 0
    """1 where it is the right label."""
    entity_list: tuple[UbertEntity, ...] = ()
    """Right spans."""


class UbertRow(_Row):
    """One text in UBERT's form; keys that are not here are passed over."""

    task_type: str
    """分类任务 or 抽取任务."""
    subtask_type: str
    """Such as 实体识别 or 抽取式阅读理解."""
    text: str
    """The text."""
    choices: tuple[UbertChoice, ...]
    """The kinds."""
    id: str | int = ""
    """Name of the row."""

    @model_validator(mode="after")
    def _spans_fit(self) -> Self:
        _check_names([choice.entity_type for choice in self.choices], "choices.entity_type")
        for number, choice in enumerate(self.choices):
            for entity in choice.entity_list:
                field = f"choices.{number}.entity_list"
                _check_places(self.text, entity.entity_name, entity.entity_idx, field)
        return self

    def to_sample(self) -> ExtractionSample:
        """Return what the objective takes."""
        spans = [
            GoldSpan(start=place[0], end=place[1] + 1, kind=number)
            for number, choice in enumerate(self.choices)
            for entity in choice.entity_list
            for place in entity.entity_idx
            if place
        ]
        return ExtractionSample(
            text=self.text,
            kinds=tuple(choice.entity_type for choice in self.choices),
            task=self.task_type,
            subtask=self.subtask_type,
            spans=tuple(dict.fromkeys(spans)),
            answers=frozenset(n for n, choice in enumerate(self.choices) if choice.label == 1),
        )


class UniexEntity(_Row):
    """An entity and its places."""

    entity_text: str = ""
    """The characters; empty where nothing is said about them."""
    entity_type: str
    """Its kind."""
    entity_index: tuple[tuple[int, ...], ...] = ()
    """First and last character of each place."""


class UniexRelation(_Row):
    """A relation between two entities."""

    predicate: str
    """Its name."""
    subject: UniexEntity
    """The first entity."""
    object: UniexEntity
    """The second one."""


class UniexRow(_Row):
    """One text in UniEX's form; keys that are not here are passed over."""

    task_type: str
    """Such as 实体识别 or 关系抽取."""
    text: str
    """The text."""
    choice: tuple[str, ...] | tuple[tuple[str, str, str], ...]
    """Kinds of entities, or relations: kind, predicate, kind. Schemas of events are not built."""
    entity_list: tuple[UniexEntity, ...] = ()
    """Right entities."""
    spo_list: tuple[UniexRelation, ...] = ()
    """Right relations."""
    id: str | int = ""
    """Name of the row."""

    @property
    def schema_triples(self) -> tuple[tuple[str, str, str], ...]:
        """The relations that are looked for."""
        return tuple(item for item in self.choice if not isinstance(item, str))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds, in the order in which the schema names them."""
        names = [item for item in self.choice if isinstance(item, str)]
        names += [kind for head, _, tail in self.schema_triples for kind in (head, tail)]
        return tuple(dict.fromkeys(names)) if self.schema_triples else tuple(names)

    @property
    def entities(self) -> list[UniexEntity]:
        """All entities, those of relations too."""
        ends = [end for item in self.spo_list for end in (item.subject, item.object)]
        return [*self.entity_list, *ends]

    @model_validator(mode="after")
    def _entities_fit(self) -> Self:
        _check_names(self.kinds, "choice")
        for entity in self.entities:
            if entity.entity_type not in self.kinds:
                known = ", ".join(self.kinds[:20])
                raise ValueError(f"entity_type = {entity.entity_type!r} is not one of {known}")
            _check_places(self.text, entity.entity_text, entity.entity_index, "entity_index")
        predicates = {predicate for _, predicate, _ in self.schema_triples}
        for relation in self.spo_list:
            if relation.predicate not in predicates:
                known = ", ".join(sorted(predicates)) or "none"
                raise ValueError(f"predicate = {relation.predicate!r} is not one of {known}")
        return self

    def to_sample(self) -> ExtractionSample:
        """Return what the objective takes."""
        spans: dict[GoldSpan, int] = {}
        for entity in self.entities:
            for span in self._spans(entity):
                spans.setdefault(span, len(spans))
        relations = [
            GoldRelation(subject=spans[head], predicate=item.predicate, object=spans[tail])
            for item in self.spo_list
            for head in self._spans(item.subject)
            for tail in self._spans(item.object)
        ]
        return ExtractionSample(
            text=self.text,
            kinds=self.kinds,
            task=self.task_type,
            spans=tuple(spans),
            schema=self.schema_triples,
            relations=tuple(dict.fromkeys(relations)),
        )

    def _spans(self, entity: UniexEntity) -> list[GoldSpan]:
        kind = self.kinds.index(entity.entity_type)
        return [
            GoldSpan(start=place[0], end=place[1] + 1, kind=kind)
            for place in entity.entity_index
            if place
        ]


def load_extraction_rows(path: Path) -> list[UbertRow | UniexRow]:
    """Read a file of texts with spans, in UBERT's form (`choices`) or UniEX's (`choice`).

    Raises:
        DataError: Names up to 20 wrong rows, each with its line, field and value.
    """
    return load_rows(path, _kind_of)


def extractions_of(
    examples: Sequence[Example], task: TaskSpec, *, titles: Mapping[str, str] | None = None
) -> list[ExtractionSample]:
    """Turn labelled rows into texts with kinds: those of the task's labels.

    A tagging task looks for entities; of the others each label is a kind that is right or not, and
    the texts of a pair stand in one, as UBERT was taught.

    Args:
        examples: Rows, with or without gold answers.
        task: Names the labels.
        titles: How kinds are called. None takes the labels themselves.
    """
    kinds = tuple((titles or {}).get(label, label) for label in task.labels)
    number_of = {label: number for number, label in enumerate(task.labels)}
    if task.family is Family.TAG:
        return [
            ExtractionSample(
                text=example.text,
                kinds=kinds,
                task=EXTRACTION_TASK,
                subtask=ENTITY_TASK,
                spans=tuple(
                    GoldSpan(start=entity.start, end=entity.end, kind=number_of[entity.type])
                    for entity in example.entities or ()
                ),
            )
            for example in examples
        ]
    return [
        ExtractionSample(
            text=PAIR_MARK.join(part for part in (example.text, example.text_pair) if part),
            kinds=kinds,
            task=CLASSIFICATION_TASK,
            subtask=task.name,
            answers=frozenset() if example.label is None else frozenset({number_of[example.label]}),
        )
        for example in examples
    ]


def _kind_of(row: Json) -> type[UbertRow | UniexRow]:
    return UbertRow if "choices" in row else UniexRow


def _check_names(names: Sequence[str], field: str) -> None:
    if not names:
        raise ValueError(f"{field} is empty; expected the kinds to look for")
    for number, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{field}: {name!r} is empty")
        if name in names[:number]:
            raise ValueError(f"{field}: {name!r} stands twice")


def _check_places(text: str, name: str, places: Sequence[tuple[int, ...]], field: str) -> None:
    for place in places:
        if not place:
            continue
        if len(place) != 2 or not 0 <= place[0] <= place[1] < len(text):
            raise ValueError(
                f"{field}: {list(place)} is no first and last character of a text of {len(text)}"
            )
        found = text[place[0] : place[1] + 1]
        if name and found != name:
            raise ValueError(f"{field}: {list(place)} is {found!r}, not {name!r}")
