# SPDX-License-Identifier: Apache-2.0
"""The rows of a task, read and checked once, with the record that describes them.

Also the preflight that names missing task files before anything is trained. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage, TaskSpec
from pyfsb.data import labelled, readers
from pyfsb.data.labelled import Example
from pyfsb.data.own_rows import HELD_OUT_NAME, TRAIN_NAME
from pyfsb.data.row_files import read_rows
from pyfsb.errors import ConfigError, DataError
from pyfsb.evaluation.contamination import find_overlap
from pyfsb.evaluation.protocol import Task
from pyfsb.evaluation.suites import resolve_tasks
from pyfsb.records import LABELLED_FOLDER, DatasetRecord, FileEntry
from pyfsb.schema import digest, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRows:
    """One set of a mixture, among the rows of the whole."""

    name: str
    """Its name."""
    num_train: int
    """Its training rows; they follow on those of the set before."""
    num_held_out: int
    """Its held-out rows, likewise."""
    num_excluded: int
    """Rows whose label stands for none of the mixture's."""
    num_left_out: int
    """Training rows left out because they give a scored row away."""
    dropped: Mapping[str, int]
    """Those of them that were left out for another task of the run, by reason."""
    labels: tuple[str, ...]
    """The mixture's labels that it has."""
    split_hash: str
    """xxh3-128 of its held-out rows."""
    weight: float | None
    """Its share of the training; None takes it from its number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRows:
    """Training and held-out rows of a task."""

    train: list[Example]
    """Rows with a gold answer."""
    held_out: list[Example]
    """Rows with a gold answer, overlapping ones included."""
    has_overlap: list[bool]
    """For each held-out row, whether training rows give it away."""
    submission: list[Example]
    """Unlabelled rows of the board; empty when the task or the data has none."""
    submission_path: Path | None
    """Their file."""
    num_excluded: int
    """Rows whose gold label means "no label"."""
    files: tuple[FileEntry, ...]
    """The files that were read."""
    split_hash: str
    """xxh3-128 of the held-out file; of a mixture that of its sets' hashes."""
    sets: tuple[SetRows, ...] = ()
    """Of a mixture its sets, in the order of their rows."""


def tasks_of(spec: RunSpec) -> list[Task]:
    """Return the tasks of a run: the registered ones, then the user's own.

    Raises:
        UnknownNameError: A task is not registered.
        ConfigError: The user's task has the name of a registered one.
        DataError: The user's rows have not been prepared.
    """
    tasks = resolve_tasks(spec.evaluation.tasks)
    if spec.has_labelled_rows:
        own = _own_task(spec)
        if own.name in {task.name for task in tasks}:
            raise ConfigError(
                f"the task of your own rows is named {own.name!r}, as a registered one of "
                "evaluation.tasks; give it another name"
            )
        tasks.append(own)
    return tasks


def check_files(spec: RunSpec) -> None:
    """Check that every task's files are there before anything is trained.

    Raises:
        UnknownNameError: A task is not registered.
        DataError: Names every missing file.
    """
    missing = []
    for task in resolve_tasks(spec.evaluation.tasks):
        for path in (task.train, task.test):
            uri = storage.join(spec.data.root, path)
            if not storage.exists(uri):
                missing.append(f"{uri} (task {task.name})")
    owner = "data.mixture" if spec.data.mixture else "data.train or data.test"
    for path in spec.labelled_files:
        if not storage.exists(path):
            missing.append(f"{path} ({owner})")
    if missing:
        raise DataError("missing files: " + ", ".join(missing) + "; is data.root right?")


def read_task_rows(task: Task, root: str) -> TaskRows:
    """Read and validate every row of a task.

    Raises:
        DataError: A file is missing, or rows are wrong; names file, line, field and value.
    """
    train, num_train_excluded, train_path = _read_split(task, root, task.train)
    held_out, num_excluded, test_path = _read_split(task, root, task.test)
    if not train or not held_out:
        raise DataError(
            f"{task.name}: {len(train)} training and {len(held_out)} held-out rows have a gold "
            "label; both are needed"
        )
    submission: list[Example] = []
    submission_path = None
    board = task.submission
    if board and storage.exists(storage.join(root, board.input)):
        submission_path = readers.local_path(root, board.input)
        submission = labelled.parse_rows(
            read_rows(submission_path), task.spec, source=board.input, needs_label=False
        )
    entries = [
        FileEntry(path=name, num_bytes=path.stat().st_size, xxh3=records.hash_file(path))
        for name, path in ((task.train, train_path), (task.test, test_path))
    ]
    return TaskRows(
        train=train,
        held_out=held_out,
        has_overlap=find_overlap(train, held_out),
        submission=submission,
        submission_path=submission_path,
        num_excluded=num_train_excluded + num_excluded,
        files=tuple(entries),
        split_hash=entries[1].xxh3,
    )


def describe_rows(run: str, task: Task, rows: TaskRows, seconds: float) -> DatasetRecord:
    """Return the record of a registered task's rows."""
    num_kept = len(rows.train) + len(rows.held_out)
    return DatasetRecord(
        run=run,
        created_at=records.now(),
        seconds=seconds,
        config_hash=digest(task.spec.to_json()),
        seeds=(),
        form="labelled",
        inputs=rows.files,
        num_read=num_kept + rows.num_excluded,
        num_kept=num_kept,
        dropped={"no_gold_label": rows.num_excluded} if rows.num_excluded else {},
        splits={
            "train": len(rows.train),
            "held_out": len(rows.held_out),
            "held_out_overlapping": sum(rows.has_overlap),
        },
        labels=task.spec.labels,
        task=task.spec.to_json(),
    )


def _own_task(spec: RunSpec) -> Task:
    """Return the task of the user's rows as the data stage wrote them."""
    folder = storage.join(spec.output_of(Stage.DATA), LABELLED_FOLDER)
    record = records.find_record(folder)
    if not isinstance(record, DatasetRecord):
        raise DataError(f"{folder}: the rows of data.train or data.mixture are not prepared yet")
    return Task(
        spec=parse(TaskSpec, record.task, source=folder),
        title="user's own rows",
        version=record.digest.removeprefix("sha256:")[:12],
        train=storage.join(folder, TRAIN_NAME),
        test=storage.join(folder, HELD_OUT_NAME),
        source=", ".join(entry.path for entry in record.inputs),
        licence="the user's own",
        is_prepared=True,
        is_mixture=spec.data.mixture is not None,
    )


def _read_split(task: Task, root: str, name: str) -> tuple[list[Example], int, Path]:
    path = readers.local_path(root, name)
    if task.is_prepared:
        return labelled.load_examples(path), 0, path
    rows: Sequence[Example] = labelled.parse_rows(
        read_rows(path), task.spec, source=name, excluded=task.excluded
    )
    kept = [row for row in rows if row.gold is not None]
    return kept, len(rows) - len(kept), path
