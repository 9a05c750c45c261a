# SPDX-License-Identifier: Apache-2.0
"""Labelled rows: one reader for every form they come in, validated before anything is trained.

`read_rows` gives plain mappings from jsonl, CSV or TSV; `parse_rows` turns them into `Example`s by
a `TaskSpec` and names every wrong row; `hold_out` splits a file by text. Used by the data stage
for a user's own file and by evaluation for the CLUE tasks.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyfsb import seeding
from pyfsb.config import Family, TaskSpec
from pyfsb.data.dedup import text_key
from pyfsb.data.readers import read_lines
from pyfsb.errors import DataError, did_you_mean, nearest_names
from pyfsb.schema import Json, Schema

_MAX_PROBLEMS = 20
"""Wrong rows that one error names."""
csv.field_size_limit(1 << 24)


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
    """Name of the template of a generated row; rows of one template count as overlapping."""

    @property
    def key(self) -> bytes:
        """The same for rows with the same texts, white space aside."""
        return text_key(self.text, *([self.text_pair] if self.text_pair is not None else []))

    @property
    def gold(self) -> str | None:
        """The answer as one comparable text: the label, or the entities in order."""
        return self.label if self.entities is None else entities_text(self.entities)


def entities_text(entities: Iterable[Entity]) -> str:
    """Return entities as one text that is the same for the same set of spans."""
    spans = sorted((entity.start, entity.end, entity.type) for entity in entities)
    return " ".join(f"{start}-{end}:{kind}" for start, end, kind in spans)


def read_rows(path: Path) -> Iterator[tuple[int, Json]]:
    """Yield line number and mapping of each row of a jsonl, CSV or TSV file.

    CSV is comma-separated with a header and double quotes; TSV is split at tabs, without quotes.

    Raises:
        DataError: A line is not UTF-8 or not JSON, or a CSV row has another number of fields.
    """
    if path.suffix.lower() == ".csv":
        yield from _read_csv(path)
    elif path.suffix.lower() == ".tsv":
        yield from _read_tsv(path)
    else:
        for number, raw in enumerate(read_lines(path), start=1):
            if raw.strip():
                yield number, _json_row(raw, path, number)


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
        shown = "\n  ".join(problems[:_MAX_PROBLEMS])
        more = len(problems) - _MAX_PROBLEMS
        tail = f"\n  … and {more} more" if more > 0 else ""
        raise DataError(f"{source}: {len(problems)} wrong rows:\n  {shown}{tail}")
    if not examples:
        raise DataError(f"{source} holds no rows")
    return examples


def with_labels(task: TaskSpec, rows: Iterable[tuple[int, Json]], *, source: str) -> TaskSpec:
    """Return the task with its label set: as given, else what occurs in the rows, sorted.

    Raises:
        DataError: Fewer than two labels occur (tag: none).
    """
    if task.labels:
        return task
    found: set[str] = set()
    for _, row in rows:
        value = row.get(task.label)
        if task.family is Family.TAG:
            found.update(entity.type for entity in _entities(value))
        elif value is not None and str(value).strip():
            found.add(str(value).strip())
    if len(found) < (1 if task.family is Family.TAG else 2):
        raise DataError(
            f"{source}: found {len(found)} labels in field {task.label!r}; a task needs at least "
            "two (set data.task.label to the field that holds them)"
        )
    return task.model_copy(update={"labels": tuple(sorted(found))})


def hold_out(
    examples: Sequence[Example], *, ratio: float, min_rows: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split rows into training and held-out ones by a hash of their text.

    Rows with the same text land on the same side, so the two never overlap.

    Returns:
        Training rows and held-out rows, each in the order of the file. About
        `max(ratio x rows, min_rows)` are held out, at most 3 of 5.
    """
    wanted = min(max(round(ratio * len(examples)), min_rows), len(examples) * 3 // 5)
    keys = {example.key for example in examples}
    ranked = sorted(keys, key=lambda key: int(seeding.hash64(seed, _number(key))))
    counts: dict[bytes, int] = {}
    for example in examples:
        counts[example.key] = counts.get(example.key, 0) + 1
    held: set[bytes] = set()
    num_held = 0
    for key in ranked:
        if num_held + counts[key] > wanted:
            continue
        held.add(key)
        num_held += counts[key]
    train = [example for example in examples if example.key not in held]
    return train, [example for example in examples if example.key in held]


def write_examples(examples: Iterable[Example], path: Path) -> None:
    """Write rows as jsonl, in the form that `load_examples` reads."""
    lines = (json.dumps(example.to_json(), ensure_ascii=False) for example in examples)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def load_examples(path: Path) -> list[Example]:
    """Read rows that `write_examples` wrote."""
    return [Example.model_validate(row) for _, row in read_rows(path)]


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


def _parse_row(
    row: Json, task: TaskSpec, number: int, needs_label: bool, excluded: frozenset[str]
) -> Example:
    text = _text(row, task.text)
    pair = _text(row, task.text_pair) if task.text_pair else None
    identity = str(row.get("id", row.get("idx", number)))
    template = row.get("template")
    common: dict[str, Any] = {"id": identity, "text": text, "text_pair": pair}
    common["template"] = None if template is None else str(template)
    if not needs_label:
        return Example(**common)
    if task.label not in row:
        raise ValueError(f"no field {task.label!r}; the row has {', '.join(map(repr, row))}")
    value = row[task.label]
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
    if field not in row:
        raise ValueError(f"no field {field!r}; the row has {', '.join(map(repr, row))}")
    value = row[field]
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


def _json_row(raw: bytes, path: Path, number: int) -> Json:
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: line {number}: not UTF-8 at byte {exc.start}") from None
    except ValueError as exc:
        raise DataError(f"{path}: line {number}: not JSON: {exc}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}: line {number}: expected an object, got {raw[:60]!r}")
    return row


def _read_csv(path: Path) -> Iterator[tuple[int, Json]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = path.read_bytes()[: exc.start].count(b"\n") + 1
        raise DataError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for fields in reader:
            if not header:
                header = [name.strip() for name in fields]
            elif len(fields) == len(header):
                yield reader.line_num, dict(zip(header, fields, strict=True))
            elif fields:
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(fields)} fields, the header has "
                    f"{len(header)} ({', '.join(header)}); quote texts that hold commas"
                )
    except csv.Error as exc:
        raise DataError(f"{path}: line {reader.line_num}: {exc}") from None


def _read_tsv(path: Path) -> Iterator[tuple[int, Json]]:
    header: list[str] = []
    for number, raw in enumerate(read_lines(path), start=1):
        try:
            fields = raw.decode("utf-8").split("\t")
        except UnicodeDecodeError as exc:
            raise DataError(f"{path}: line {number}: not UTF-8 at byte {exc.start}") from None
        if not header:
            header = fields
        elif len(fields) == len(header):
            yield number, dict(zip(header, fields, strict=True))
        elif raw.strip():
            raise DataError(
                f"{path}: line {number}: {len(fields)} fields, the header has {len(header)}"
            )
