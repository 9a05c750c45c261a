# SPDX-License-Identifier: Apache-2.0
"""Official submission files: one JSON object a line, in the order of the board's test file.

The official scorer is positional: it reads `label` line by line and ignores the id, so rows are
never sorted, dropped or merged. Labels are strings, ids keep the type of the test file.

Source: CLUEbenchmark/FewCLUE `submit_examples`; CLUE 1.1 submission guide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pyfsb.data.row_files import read_rows
from pyfsb.errors import DataError
from pyfsb.evaluation.predict import Answer
from pyfsb.evaluation.protocol import Task
from pyfsb.storage import write_text


def write_submission(task: Task, input_path: Path, answers: Sequence[Answer], folder: Path) -> Path:
    """Write and check the file to hand in.

    Args:
        task: With a submission.
        input_path: The board's unlabelled rows.
        answers: One a row, in the order of the file.
        folder: Where the file goes.

    Raises:
        DataError: The number of answers is not that of the rows.
    """
    assert task.submission is not None
    ids = [row.get("id", number) for number, (_, row) in enumerate(read_rows(input_path))]
    if len(ids) != len(answers):
        raise DataError(f"{input_path}: {len(ids)} rows but {len(answers)} answers")
    lines = [
        json.dumps({"id": identity, "label": answer.value}, ensure_ascii=False)
        for identity, answer in zip(ids, answers, strict=True)
    ]
    path = folder / task.submission.file_name
    write_text(str(path), "".join(f"{line}\n" for line in lines))
    check_submission(task, input_path, path)
    return path


def check_submission(task: Task, input_path: Path, path: Path) -> None:
    """Check a submission file as the board would read it.

    Raises:
        DataError: Names the first line with another id, a missing or an unknown label, or says
            that the number of lines differs.
    """
    expected = [row.get("id", number) for number, (_, row) in enumerate(read_rows(input_path))]
    rows = [row for _, row in read_rows(path)]
    if len(rows) != len(expected):
        raise DataError(f"{path}: {len(rows)} lines, the board expects {len(expected)}")
    for number, (row, identity) in enumerate(zip(rows, expected, strict=True), start=1):
        if row.get("id") != identity:
            raise DataError(f"{path}: line {number}: id {row.get('id')!r}, expected {identity!r}")
        if row.get("label") not in task.spec.labels:
            raise DataError(
                f"{path}: line {number}: label {row.get('label')!r} is not one of "
                f"{', '.join(task.spec.labels[:20])} (strings)"
            )
