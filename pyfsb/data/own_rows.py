# SPDX-License-Identifier: Apache-2.0
"""The user's own labelled rows, of one file or of a mixture, checked and split.

Called by `prepare`, which writes them; `evaluation.rows` reads them by the names given here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyfsb.config import RunSpec, TaskSpec
from pyfsb.data import labelled, mixture, readers
from pyfsb.data.labelled import Example
from pyfsb.data.row_files import read_rows

TRAIN_NAME: Final = "train.jsonl"
HELD_OUT_NAME: Final = "held_out.jsonl"
"""Files of the rows; those of a mixture lie in a folder of each set's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRows:
    """What the user's labelled files hold."""

    task: TaskSpec
    """Family, fields and labels of the rows as they are written."""
    files: dict[str, list[Example]]
    """Rows of every file to write, by its path."""
    splits: dict[str, int]
    """Rows of every split."""
    dropped: dict[str, int]
    """Rows that are in none, by reason."""


def read_labelled(spec: RunSpec) -> LabelledRows:
    """Read, check and split what `data.train` or `data.mixture` names.

    Raises:
        DataError: A file is missing, rows are wrong, or too few are left on one side.
    """
    return _read_mixture(spec) if spec.data.mixture else _read_own(spec)


def _read_own(spec: RunSpec) -> LabelledRows:
    """Read and split the rows of one file."""
    data, source = spec.data, str(spec.data.train)
    rows = list(read_rows(readers.local_path("", source)))
    task = labelled.with_labels(spec.own_task, rows, source=source)
    train = labelled.parse_rows(rows, task, source=source)
    if data.test:
        test_rows = read_rows(readers.local_path("", data.test))
        held = labelled.parse_rows(test_rows, task, source=data.test)
    else:
        train, held = labelled.hold_out(
            train, ratio=data.held_out_ratio, min_rows=data.held_out_rows, seed=spec.seed
        )
    labelled.check_split(train, held, task, source=source)
    return LabelledRows(
        task=task,
        files={TRAIN_NAME: train, HELD_OUT_NAME: held},
        splits={"train": len(train), "held_out": len(held)},
        dropped={},
    )


def _read_mixture(spec: RunSpec) -> LabelledRows:
    """Read the sets of a mixture, each in a folder of its own."""
    assert spec.data.mixture is not None
    sets = mixture.read_mixture(spec.data, spec.data.mixture, seed=spec.seed)
    files: dict[str, list[Example]] = {}
    for part in sets:
        files[f"{part.name}/{TRAIN_NAME}"] = part.train
        files[f"{part.name}/{HELD_OUT_NAME}"] = part.held_out
    return LabelledRows(
        task=spec.own_task,
        files=files,
        splits=mixture.describe_splits(sets),
        dropped=mixture.describe_dropped(sets),
    )
