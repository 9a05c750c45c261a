# SPDX-License-Identifier: Apache-2.0
"""The rows of a mixture as one task, its record, and its scores: of every set and together.

Called by `run`. The data stage has taken what the sets score out of the training rows; here goes
what the registered tasks of the run score, which only evaluation knows. Never reads raw files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final

from pyfsb import records, storage
from pyfsb.config import RunSpec, Stage
from pyfsb.config.sections import MixtureSet, MixtureSpec
from pyfsb.data import labelled, mixture, readers
from pyfsb.data.mixture import LabelledSet
from pyfsb.data.own_rows import HELD_OUT_NAME, TRAIN_NAME
from pyfsb.errors import DataError
from pyfsb.evaluation.contamination import find_overlap
from pyfsb.evaluation.predict import Answer
from pyfsb.evaluation.protocol import Task
from pyfsb.evaluation.rows import SetRows, TaskRows
from pyfsb.evaluation.scoring import Scored, score_answers
from pyfsb.records import LABELLED_FOLDER, DatasetRecord, FileEntry, Score
from pyfsb.schema import digest

EACH_MAJORITY: Final = "each set's own baseline"
"""Baseline of all sets together: knowing which set a row is of is not yet an answer."""
_DROPPED_SETTING: Final = f": {mixture.UNMAPPED}"


def labelled_uri(spec: RunSpec) -> str:
    """Return the folder of the rows that the data stage prepared."""
    return storage.join(spec.output_of(Stage.DATA), LABELLED_FOLDER)


def read_sets(spec: RunSpec, others: Mapping[str, TaskRows]) -> TaskRows:
    """Return a mixture's rows without what other tasks of the run score.

    Args:
        spec: The run, with a mixture whose rows are prepared.
        others: Rows of the registered tasks.

    Raises:
        DataError: Nothing is left of a set, or the rows are not prepared.
    """
    assert spec.data.mixture is not None
    folder = labelled_uri(spec)
    record = records.read_record(folder)
    if not isinstance(record, DatasetRecord):
        raise DataError(f"{folder} holds a {record.kind}, expected labelled rows")
    sets = mixture.leave_out(
        [_load_set(folder, part) for part in spec.data.mixture.sets],
        {f"task {name}": rows.held_out for name, rows in others.items()},
    )
    train = [row for part in sets for row in part.train]
    held_out = [row for part in sets for row in part.held_out]
    hashes = {file.path: file.xxh3 for file in record.files}
    found = [
        _describe_set(spec.data.mixture, setting, part, record, hashes)
        for setting, part in zip(spec.data.mixture.sets, sets, strict=True)
    ]
    return TaskRows(
        train=train,
        held_out=held_out,
        has_overlap=find_overlap(train, held_out),
        submission=[],
        submission_path=None,
        num_excluded=sum(part.num_excluded for part in found),
        files=(*record.files, *_scored_files(others)),
        split_hash=records.hash_bytes("".join(part.split_hash for part in found).encode()),
        sets=tuple(found),
    )


def describe_sets(spec: RunSpec, task: Task, rows: TaskRows, *, seconds: float) -> DatasetRecord:
    """Return the record of what is trained on: the prepared rows without those left out here."""
    uri = labelled_uri(spec)
    prepared = records.read_record(uri)
    assert isinstance(prepared, DatasetRecord)
    counts = {"train": len(rows.train), "held_out": len(rows.held_out)}
    dropped: dict[str, int] = {}
    for part in rows.sets:
        counts[f"{part.name}/train"] = part.num_train
        counts[f"{part.name}/held_out"] = part.num_held_out
        dropped |= {f"{part.name}: {reason}": count for reason, count in part.dropped.items()}
    num_kept = len(rows.train) + len(rows.held_out)
    place = storage.join(spec.output_of(Stage.EVALUATION), task.name, "data")
    names = {file.path for file in prepared.files}
    return DatasetRecord(
        run=spec.name,
        created_at=records.now(),
        seconds=seconds,
        config_hash=digest(task.spec.to_json()),
        seeds=(),
        parents=(records.link(prepared, uri, base=place, root=spec.output),),
        form="labelled",
        inputs=tuple(file for file in rows.files if file.path not in names),
        num_read=num_kept + sum(dropped.values()),
        num_kept=num_kept,
        dropped=dropped,
        splits=counts,
        labels=task.spec.labels,
        task=task.spec.to_json(),
    )


def score_sets(scored: Scored, rows: TaskRows, answers: Sequence[Sequence[Answer]]) -> list[Score]:
    """Score a mixture: all rows together, then every set on its own rows.

    Together, the baseline is that of each set on its own rows: with the most frequent label of
    all rows, a model that only tells the sets apart would pass.

    Args:
        scored: What it is.
        rows: Held-out rows, those of the sets one after the other.
        answers: For each seed its answers, one a row.
    """
    found, baselines = [], []
    train_ends = list(accumulate(part.num_train for part in rows.sets))
    ends = list(accumulate(part.num_held_out for part in rows.sets))
    for part, train_end, end in zip(rows.sets, train_ends, ends, strict=True):
        own = slice(end - part.num_held_out, end)
        train = rows.train[train_end - part.num_train : train_end]
        spec = scored.task.spec.model_copy(update={"labels": part.labels})
        about = replace(
            scored,
            task=replace(scored.task, spec=spec),
            set_name=part.name,
            split_hash=part.split_hash,
            num_train=part.num_train,
            num_excluded=part.num_excluded,
            details={"num_train_left_out": float(part.num_left_out)},
        )
        score = score_answers(
            about,
            rows.held_out[own],
            rows.has_overlap[own],
            [seed[own] for seed in answers],
            train=train,
        )
        found.append(score)
        baselines.append((score.num_rows, score.majority_value))
    num_right = sum(count * share for count, share in baselines)
    num_rows = sum(count for count, _ in baselines)
    baseline = (EACH_MAJORITY, num_right / num_rows) if num_rows else ("", 0.0)
    whole = replace(
        scored,
        baseline=baseline,
        details={"num_train_left_out": float(sum(part.num_left_out for part in rows.sets))},
    )
    return [score_answers(whole, rows.held_out, rows.has_overlap, answers), *found]


def _load_set(folder: str, part: MixtureSet) -> LabelledSet:
    train, held_out = (
        labelled.load_examples(readers.local_path(folder, f"{part.name}/{name}"))
        for name in (TRAIN_NAME, HELD_OUT_NAME)
    )
    return LabelledSet(name=part.name, train=train, held_out=held_out, dropped={})


def _describe_set(
    whole: MixtureSpec,
    setting: MixtureSet,
    part: LabelledSet,
    record: DatasetRecord,
    hashes: Mapping[str, str],
) -> SetRows:
    before = {
        reason: count
        for reason, count in record.dropped.items()
        if reason.startswith(f"{part.name}: ")
    }
    num_excluded = before.pop(f"{part.name}{_DROPPED_SETTING}", 0)
    used = set(setting.label_map.values()) or set(whole.labels)
    return SetRows(
        name=part.name,
        num_train=len(part.train),
        num_held_out=len(part.held_out),
        num_excluded=num_excluded,
        num_left_out=sum(before.values()) + sum(part.dropped.values()),
        dropped=part.dropped,
        labels=tuple(label for label in whole.labels if label in used),
        split_hash=hashes[f"{part.name}/{HELD_OUT_NAME}"],
        weight=setting.weight,
    )


def _scored_files(others: Mapping[str, TaskRows]) -> list[FileEntry]:
    """Return the held-out files of the other tasks: which rows are left out depends on them."""
    return [file for rows in others.values() for file in rows.files[1:]]
