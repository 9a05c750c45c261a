# SPDX-License-Identifier: Apache-2.0
"""What is known about a checkpoint that is being registered: its record and its evaluation.

A report is found where the run that made the checkpoint left it, or is named.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyfsb import records, storage
from pyfsb.errors import CheckpointError, DataError
from pyfsb.records import CheckpointRecord, EvalReport, GateResult, Parent
from pyfsb.storage.workspace import localise
from pyfsb.versions.documents import VersionScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A checkpoint as its files tell."""

    digest: str
    model: str | None = None
    task: str | None = None
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a report says about a checkpoint."""

    evaluation: str | None = None
    digest: str | None = None
    scores: tuple[VersionScore, ...] = ()
    gate: GateResult | None = None


def describe(checkpoint: str) -> Described:
    """Return digest and origin of a checkpoint.

    Raises:
        CheckpointError: There is none, or something else.
    """
    record = records.find_record(checkpoint)
    if isinstance(record, CheckpointRecord):
        parents = tuple(
            parent.model_copy(update={"uri": storage.resolve(parent.uri, checkpoint)})
            for parent in record.parents
        )
        return Described(
            digest=record.digest, model=record.model, task=record.task, parents=parents
        )
    if record is not None:
        raise CheckpointError(
            f"{checkpoint} holds a {record.kind}; a model is a CheckpointRecord (the training "
            "folder, or evaluation/TASK/finetune-SEED)"
        )
    if not storage.exists(storage.join(checkpoint, "config.json")):
        raise CheckpointError(
            f"{checkpoint}: neither a record.json nor a config.json; expected a finished "
            "checkpoint or a Hugging Face folder"
        )
    return Described(digest=records.describe_weights(localise(checkpoint)))


def judge(checkpoint: str, digest: str, evaluation: str | None) -> Judged:
    """Return what a report says about a checkpoint: the one named, else the one of its run.

    Args:
        checkpoint: Where it lies.
        digest: Its digest.
        evaluation: Folder of a report. None looks in the run that made the checkpoint.

    Raises:
        DataError: The report named is none, or is about other checkpoints.
    """
    if evaluation is not None:
        report = records.read_record(evaluation)
        if not isinstance(report, EvalReport):
            raise DataError(f"{evaluation} holds a {report.kind}, expected an EvalReport")
        found = _read(report, digest, evaluation)
        if found is None:
            raise DataError(
                f"the report in {evaluation} is not about {checkpoint} ({digest[:19]}); give the "
                "report of its own evaluation"
            )
        return found
    # OUT/evaluation/TASK/finetune-42 and OUT/training have their report in OUT/evaluation.
    for place in (storage.join(checkpoint, "../.."), storage.join(checkpoint, "../evaluation")):
        record = records.find_record(place)
        if isinstance(record, EvalReport) and (found := _read(record, digest, place)):
            return found
    return Judged()


def _read(report: EvalReport, digest: str, place: str) -> Judged | None:
    """Return what a report says about a checkpoint that it scored, or that it started from."""
    gate = report.gate
    scores = [score for score in report.scores if score.checkpoint_digest == digest]
    is_judged = any((s.task, s.runner) == (gate.task, gate.runner) for s in scores)
    if not scores:
        if digest not in {parent.digest for parent in report.parents}:
            return None
        scores, is_judged = list(report.scores), True
    return Judged(
        evaluation=storage.absolute(place),
        digest=report.digest,
        scores=tuple(VersionScore.from_score(score) for score in scores),
        gate=gate if is_judged else None,
    )
