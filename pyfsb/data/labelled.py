# SPDX-License-Identifier: Apache-2.0
"""Labelled rows: one reader for every form they come in, validated before anything is trained.

`parse_rows` turns the mappings of `row_files` into `Example`s by a `TaskSpec` and names every wrong
row; `hold_out` splits a file so that no text and no template stands on both sides, `check_split`
refuses a split of no use. Used by the data stage for a user's own files and by evaluation for the
CLUE tasks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pyfsb import storage
from pyfsb.config import Family, TaskSpec
from pyfsb.data.dedup import text_key
from pyfsb.data.row_files import read_rows
from pyfsb.data.splitting import choose_held_out
from pyfsb.errors import DataError, did_you_mean, nearest_names
from pyfsb.schema import Json, Schema

_MAX_PROBLEMS = 20
"""Wrong rows that one error names."""
_SPAN = re.compile(r"(\d+)-(\d+):(.*?)(?= \d+-\d+:|$)", re.DOTALL)
"""One span as `entities_text` writes it; types may hold spaces."""


class Entity(Schema):
    """A typed span of a text."""

    start: int
    """First character, counted from 0."""
    end: int
    """One past the last character."""
    type: str
    """One of the task's labels."""


class Example(Schema):
    """One row of a labelled set."""

    id: str
    """As in the file, else the row number."""
    text: str
    """The (first) text."""
    text_pair: str | None = None
    """The second text of a pair."""
    label: str | None = None
    """The gold label; None where the file has none."""
    entities: tuple[Entity, ...] | None = None
    """Gold entities of a tagging task; None where the file has none."""
    template: str | None = None
    """Name of the template it was made from; rows of one template count as overlapping."""

    @property
    def key(self) -> bytes:
        """The same for rows with the same texts, white space aside."""
        return text_key(self.text, *([self.text_pair] if self.text_pair is not None else []))

    @property
    def marks(self) -> tuple[bytes, ...]:
        """What gives the row away: its key, of a pair also the swapped one, and its template."""
        swapped = [] if self.text_pair is None else [text_key(self.text_pair, self.text)]
        template = [] if self.template is None else [f"template {self.template}".encode()]
        return (self.key, *swapped, *template)

    @property
    def labels(self) -> frozenset[str]:
        """The label, or the types of the entities; empty where there is none."""
        if self.entities is not None:
            return frozenset(entity.type for entity in self.entities)
        return frozenset() if self.label is None else frozenset({self.label})

    @property
    def gold(self) -> str | None:
        """The answer as one comparable text: the label, or the entities in order."""
        return self.label if self.entities is None else entities_text(self.entities)


def entities_text(entities: Iterable[Entity]) -> str:
    """Return entities as one text that is the same for the same set of spans."""
    spans = sorted({(entity.start, entity.end, entity.type) for entity in entities})
    return " ".join(f"{start}-{end}:{kind}" for start, end, kind in spans)


def parse_spans(text: str) -> frozenset[tuple[int, int, str]]:
    """Return the spans (start, end, type) of what `entities_text` wrote."""
    return frozenset((int(start), int(end), kind) for start, end, kind in _SPAN.findall(text))


def parse_rows(
    rows: Iterable[tuple[int, Json]],
    task: TaskSpec,
    *,
    source: str,
    needs_label: bool = True,
    excluded: frozenset[str] = frozenset(),
) -> list[Example]:
    """Validate every row before any is used.

    Args:
        rows: Line numbers and mappings, from `read_rows`.
        task: Names the fields and the labels.
        source: File name for messages.
        needs_label: False for a submission's input.
        excluded: Gold labels that mean "no label", such as OCNLI's `-`; such rows get label None.

    Raises:
        DataError: Names up to 20 wrong rows, each with its line, field and value.
    """
    examples: list[Example] = []
    problems: list[str] = []
    for number, row in rows:
        try:
            examples.append(_parse_row(row, task, number, needs_label, excluded))
        except ValueError as exc:
            problems.append(f"line {number}: {exc}")
    if problems:
        raise _wrong_rows(problems, source)
    if not examples:
        raise DataError(f"{source} holds no rows")
    return examples


def with_labels(task: TaskSpec, rows: Iterable[tuple[int, Json]], *, source: str) -> TaskSpec:
    """Return the task with its label set: as given, else what occurs in the rows, sorted.

    Rows without a readable label are passed over: `parse_rows` names them all.

    Raises:
        DataError: There are no rows, or fewer than two labels occur (tag: none); names the wrong
            rows if they are why.
    """
    if task.labels:
        return task
    found: set[str] = set()
    problems: list[str] = []
    number = 0
    for number, row in rows:
        try:
            found |= labels_in(row, task)
        except ValueError as exc:
            problems.append(f"line {number}: {exc}")
    if not number:
        raise DataError(f"{source} holds no rows")
    if len(found) < _num_labels_needed(task):
        if problems:
            raise _wrong_rows(problems, source)
        wanted = "one" if task.family is Family.TAG else "two"
        raise DataError(
            f"{source}: found {len(found)} labels in field {task.label!r}; a task needs at least "
            f"{wanted}, here is {', '.join(found) or 'none'} (set data.task.label to the field "
            "that holds them)"
        )
    return task.model_copy(update={"labels": tuple(sorted(found))})


def labels_in(row: Json, task: TaskSpec) -> set[str]:
    """Return the label of a row, or the types of its entities, as they stand in the file.

    Raises:
        ValueError: There is no such field, or it holds none.
    """
    value = _field(row, task.label)
    if task.family is Family.TAG:
        return {entity.type for entity in _entities(value)}
    label = "" if value is None else str(value).strip()
    if not label:
        raise ValueError(f"{task.label} = {value!r} is not a label")
    return {label}


def hold_out(
    examples: Sequence[Example], *, ratio: float, min_rows: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split rows into training and held-out ones by a hash of their texts.

    Rows that share their texts or their template land on the same side, so the two never overlap;
    of every label at least one row stays in training.

    Returns:
        Training rows and held-out rows, each in the order of the file. About
        `max(ratio x rows, min_rows)` are held out, more where a group of rows that belong
        together goes beyond it, at most 3 of 5.
    """
    limit = len(examples) * 3 // 5
    held = choose_held_out(
        [example.marks for example in examples],
        [example.labels for example in examples],
        num_wanted=min(max(round(ratio * len(examples)), min_rows), limit),
        num_limit=limit,
        seed=seed,
    )
    train = [example for number, example in enumerate(examples) if number not in held]
    return train, [examples[number] for number in sorted(held)]


def check_split(
    train: Sequence[Example], held_out: Sequence[Example], task: TaskSpec, *, source: str
) -> None:
    """Refuse rows that nothing can be learned from or scored on, before anything is trained.

    Raises:
        DataError: A side is empty, or the training rows have one label only (tag: no entity).
    """
    num_rows = len(train) + len(held_out)
    if not train or not held_out:
        raise DataError(
            f"{source}: of {num_rows} rows {len(train)} are left to train on and {len(held_out)} "
            "to score, both need some; rows with the same text (or template) stay together and "
            "every label needs a training row: give more rows, or rows to score as data.test"
        )
    found = frozenset().union(*(row.labels for row in train))
    if len(found) >= _num_labels_needed(task):
        return
    if task.family is Family.TAG:
        raise DataError(
            f"{source}: none of {len(train)} training rows has an entity in field {task.label!r}; "
            "a tagging task needs rows with entities"
        )
    raise DataError(
        f"{source}: {task.label} = {', '.join(found)} in all {len(train)} training rows; a task "
        "needs rows of at least two labels"
    )


def write_examples(examples: Iterable[Example], path: Path) -> None:
    """Write rows as jsonl, in the form that `load_examples` reads, whole or not at all.

    Raises:
        StorageError: The disk is full or refuses.
    """
    with storage.replacing(path) as file:
        for example in examples:
            file.write(json.dumps(example.to_json(), ensure_ascii=False).encode() + b"\n")


def load_examples(path: Path) -> list[Example]:
    """Read rows that `write_examples` wrote."""
    return [Example.model_validate(row) for _, row in read_rows(path)]


def _num_labels_needed(task: TaskSpec) -> int:
    return 1 if task.family is Family.TAG else 2


def _wrong_rows(problems: Sequence[str], source: str) -> DataError:
    shown = "\n  ".join(problems[:_MAX_PROBLEMS])
    more = len(problems) - _MAX_PROBLEMS
    tail = f"\n  … and {more} more" if more > 0 else ""
    return DataError(f"{source}: {len(problems)} wrong rows:\n  {shown}{tail}")


def _field(row: Json, name: str) -> Any:
    if name not in row:
        raise ValueError(f"no field {name!r}; the row has {', '.join(map(repr, row))}")
    return row[name]


def _parse_row(
    row: Json, task: TaskSpec, number: int, needs_label: bool, excluded: frozenset[str]
) -> Example:
    text = _text(row, task.text)
    pair = _text(row, task.text_pair) if task.text_pair else None
    identity = str(row.get("id", row.get("idx", number)))
    template = row.get(task.template) if task.template else None
    common: dict[str, Any] = {"id": identity, "text": text, "text_pair": pair}
    common["template"] = None if template is None else str(template).strip() or None
    if not needs_label:
        return Example(**common)
    value = _field(row, task.label)
    if task.family is Family.TAG:
        return Example(**common, entities=_checked_entities(value, text, task))
    label = str(value).strip() if value is not None else ""
    if label in excluded:
        return Example(**common)
    if label not in task.labels:
        near = did_you_mean(nearest_names(label, task.labels))
        known = ", ".join(task.labels[:20]) + (" …" if len(task.labels) > 20 else "")
        raise ValueError(f"{task.label} = {value!r} is not one of {known}{near}")
    return Example(**common, label=label)


def _text(row: Json, field: str) -> str:
    value = _field(row, field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field} = {value!r} is not a text")
    return value


def _checked_entities(value: object, text: str, task: TaskSpec) -> tuple[Entity, ...]:
    entities = _entities(value)
    for entity in entities:
        if not 0 <= entity.start < entity.end <= len(text):
            raise ValueError(
                f"entity {entity.start}..{entity.end} lies outside a text of {len(text)} characters"
            )
        if entity.type not in task.labels:
            known = ", ".join(task.labels)
            raise ValueError(f"entity type {entity.type!r} is not one of {known}")
    return tuple(sorted(entities, key=lambda entity: (entity.start, entity.end)))


def _entities(value: object) -> list[Entity]:
    """Read entities: a list of {start, end, type}, the same as JSON text, or CLUENER's mapping.

    Source: CLUENER's mapping is {type: {surface: [[first, last], …]}} with inclusive ends.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except ValueError:
            raise ValueError(f"{value!r} is not a JSON list of entities") from None
    try:
        if isinstance(value, dict):
            return [
                Entity(start=first, end=last + 1, type=kind)
                for kind, surfaces in value.items()
                for spans in surfaces.values()
                for first, last in spans
            ]
        if isinstance(value, list):
            return [Entity.model_validate(item) for item in value]
    except (TypeError, ValueError, AttributeError):
        pass
    raise ValueError(f"{value!r} is not a list of {{start, end, type}}")
