# SPDX-License-Identifier: Apache-2.0
"""Several labelled sets in one form, without the training rows that a scored row gives away.

Each set is read by its own fields, its labels become the mixture's, and what is to be scored, in
whichever set, is taken out of all training rows and counted. Called by `prepare`; evaluation calls
`leave_out` for the tasks that only it knows. Never decides how often a set is seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pyfsb.config import DataSpec, Family, TaskSpec
from pyfsb.config.sections import MixtureSet, MixtureSpec
from pyfsb.data import labelled, readers
from pyfsb.data.labelled import Example
from pyfsb.data.row_files import read_rows
from pyfsb.errors import DataError
from pyfsb.schema import Json

UNMAPPED = "label not in its map"
"""Reason of rows that `drop_unmapped` leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """The rows of one set, in the mixture's form."""

    name: str
    """Its name."""
    train: list[Example]
    """Rows to train on."""
    held_out: list[Example]
    """Rows to score."""
    dropped: Mapping[str, int]
    """Rows of its files that are in neither, by reason."""


def read_mixture(data: DataSpec, mixture: MixtureSpec, *, seed: int) -> list[LabelledSet]:
    """Read every set, and take what is scored in any of them out of the training rows of all.

    Args:
        data: Where the files lie and how many rows are held out of a set without a test file.
        mixture: The sets.
        seed: Of the choice of held-out rows.

    Raises:
        DataError: Rows are wrong (names set, file, line, field and value), or too few are left.
    """
    sets = [_read_set(data, mixture, part, seed) for part in mixture.sets]
    for part in sets:
        _check_sides(part)
    found = leave_out(sets, {part.name: part.held_out for part in sets})
    labelled.check_split(
        [row for part in found for row in part.train],
        [row for part in found for row in part.held_out],
        mixture.task,
        source=f"mixture {mixture.name}",
    )
    return found


def leave_out(
    sets: Iterable[LabelledSet], scored: Mapping[str, Iterable[Example]]
) -> list[LabelledSet]:
    """Return the sets without the training rows that scored rows give away, counted by reason.

    A row goes when its texts, white space aside, are scored (of a pair also in the other order),
    or when its template is; templates are those of one set.

    Args:
        sets: The sets.
        scored: Rows that are scored, under the name of the set or task that scores them.

    Raises:
        DataError: Nothing is left of a set.
    """
    owners: dict[bytes, str] = {}
    for name, rows in scored.items():
        for row in rows:
            for mark in row.marks:
                owners.setdefault(mark, name)
    result = []
    for part in sets:
        dropped, kept = Counter(part.dropped), []
        for row in part.train:
            owner = next((owners[mark] for mark in row.marks if mark in owners), None)
            if owner is None:
                kept.append(row)
            else:
                dropped[f"held out in {owner}"] += 1
        result.append(replace(part, train=kept, dropped=dict(dropped)))
        _check_sides(result[-1])
    return result


def describe_dropped(sets: Iterable[LabelledSet]) -> dict[str, int]:
    """Return the rows left out, by set and reason, for a record."""
    return {
        f"{part.name}: {reason}": count
        for part in sets
        for reason, count in sorted(part.dropped.items())
        if count
    }


def describe_splits(sets: Sequence[LabelledSet]) -> dict[str, int]:
    """Return the rows of each split, together and of every set, for a record."""
    together = {
        "train": sum(len(part.train) for part in sets),
        "held_out": sum(len(part.held_out) for part in sets),
    }
    for part in sets:
        together[f"{part.name}/train"] = len(part.train)
        together[f"{part.name}/held_out"] = len(part.held_out)
    return together


def _read_set(data: DataSpec, mixture: MixtureSpec, part: MixtureSet, seed: int) -> LabelledSet:
    task = TaskSpec(
        name=part.name,
        family=mixture.family,
        text=part.text,
        text_pair=part.text_pair,
        label=part.label,
        labels=tuple(part.label_map) or mixture.labels,
        template=part.template,
    )
    train, num_unmapped = _read_file(data.root, part.train, task, part)
    held_out: list[Example] = []
    if part.test:
        held_out, num_more = _read_file(data.root, part.test, task, part)
        num_unmapped += num_more
    else:
        train, held_out = labelled.hold_out(
            train, ratio=data.held_out_ratio, min_rows=data.held_out_rows, seed=seed
        )
    dropped = {UNMAPPED: num_unmapped} if num_unmapped else {}
    return LabelledSet(name=part.name, train=train, held_out=held_out, dropped=dropped)


def _read_file(root: str, name: str, task: TaskSpec, part: MixtureSet) -> tuple[list[Example], int]:
    """Return the rows of a file in the mixture's form, and the number of those left out."""
    path = readers.local_path(root, name)
    source = f"{name} (set {part.name})"
    rows = list(read_rows(path))
    wanted = [row for row in rows if _is_mapped(row[1], task)] if part.drop_unmapped else rows
    if rows and not wanted:
        raise DataError(
            f"{source}: none of {len(rows)} rows has one of the labels {', '.join(task.labels)} in "
            f"field {part.label!r}"
        )
    examples = labelled.parse_rows(wanted, task, source=source)
    return [_translate(row, part) for row in examples], len(rows) - len(wanted)


def _is_mapped(row: Json, task: TaskSpec) -> bool:
    """Say whether a row has labels of the set only; one that cannot be read stays, to be told."""
    if task.family is not Family.TAG and task.label in row:
        value = row[task.label]
        return ("" if value is None else str(value).strip()) in task.labels
    try:
        return labelled.labels_in(row, task) <= set(task.labels)
    except ValueError:
        return True


def _translate(row: Example, part: MixtureSet) -> Example:
    """Return a row with the mixture's labels and a template that is the set's own."""
    names = part.label_map
    template = None if row.template is None else f"{part.name}/{row.template}"
    entities = row.entities
    if entities is not None:
        entities = tuple(
            entity.model_copy(update={"type": names.get(entity.type, entity.type)})
            for entity in entities
        )
    label = None if row.label is None else names.get(row.label, row.label)
    return row.model_copy(update={"label": label, "entities": entities, "template": template})


def _check_sides(part: LabelledSet) -> None:
    if part.train and part.held_out:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in part.dropped.items())
    raise DataError(
        f"set {part.name}: {len(part.train)} rows are left to train on and {len(part.held_out)} to "
        f"score, both need some; left out: {reasons or 'none'}"
    )
