# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run: stages, scores, the served answer, where to look next."""

from __future__ import annotations

from typing import TypeVar

from pyfsb import storage
from pyfsb.cli.arguments import make_console, print_json, print_table
from pyfsb.config import RunSpec, Stage
from pyfsb.engines.protocol import RunResult, StageResult
from pyfsb.evaluation.statistics import format_p_value
from pyfsb.evaluation.tasks import all_tasks
from pyfsb.records import (
    CheckpointRecord,
    DatasetRecord,
    EvalReport,
    Record,
    Score,
    ServingRecord,
)
from pyfsb.schema import Json

R = TypeVar("R", DatasetRecord, CheckpointRecord, EvalReport, ServingRecord)


def show(spec: RunSpec, result: RunResult, form: str) -> None:
    """Print what a run left behind."""
    if form == "json":
        print_json(to_json(spec, result))
        return
    print_table(
        f"run {spec.name}", ("stage", "seconds", "record", "what it says"),
        [row for stage in result.stages for row in _stage_rows(stage)],
    )  # fmt: skip
    report = _find(result, EvalReport)
    if report:
        header = (
            "task", "runner", "score", "95 % interval", "n", "majority", "p", "overlap left out",
        )  # fmt: skip
        print_table("scores", header, [score_cells(score) for score in report.scores])
    console = make_console()
    served = _find(result, ServingRecord)
    if served:
        console.print(f"asked    {served.question['text']}")
        by = "the n-gram model" if served.runner == "ngram" else "the fine-tuned model"
        console.print(f"answered {describe_answer(served)}, by {by}")
        console.print(f"at       {served.endpoint}")
    for name, place in next_places(spec, result).items():
        console.print(f"{name:8} {place}")


def to_json(spec: RunSpec, result: RunResult) -> Json:
    """Return what a run left behind as plain values."""
    return {
        "run": spec.name,
        "stages": [
            {
                "stage": stage.stage.value,
                "seconds": round(stage.seconds, 3),
                "was_complete": stage.was_complete,
                "places": list(stage.places),
                "records": [
                    record.to_json() | {"digest": record.digest} for record in stage.records
                ],
            }
            for stage in result.stages
        ],
        "next": next_places(spec, result),
    }


def describe(record: Record) -> str:
    """Return one line about a record."""
    if isinstance(record, DatasetRecord):
        counts = f"{record.num_kept:,} of {record.num_read:,}"
        if record.form == "labelled":
            splits = ", ".join(f"{count:,} {name}" for name, count in record.splits.items())
            return f"{record.task.get('name')}: {counts} rows, {splits}"
        dropped = ", ".join(f"{count:,} {name}" for name, count in record.dropped.items())
        return f"{counts} documents, {record.num_tokens:,} tokens; dropped: {dropped or 'none'}"
    if isinstance(record, CheckpointRecord):
        loss = "" if record.loss is None else f", loss {record.loss:.4f}"
        size = f"{record.num_parameters / 1e6:.2f} M parameters"
        what = f" for {record.task}" if record.task else ""
        return f"{record.model}{what}, {size}, {record.step:,} steps{loss}"
    if isinstance(record, EvalReport):
        state = "passed" if record.gate.has_passed else "not passed"
        return f"{len(record.scores)} scores; gate {state}: {record.gate.reason}"
    return f"{record.model_name} at {record.endpoint}"


def score_cells(score: Score) -> tuple[str, ...]:
    """Return a score as the cells of the table: the served seed's, and the mean beside it."""
    seeds = len(score.seeds)
    mean = f" (mean of {seeds} seeds {score.value:.3f})" if seeds > 1 else ""
    chance = "" if score.p_value < 0.001 else " (not distinguishable from majority)"
    return (
        score.task,
        score.runner,
        f"{score.seed_values[0]:.3f}{mean}",
        f"{score.interval[0]:.3f}–{score.interval[1]:.3f}",
        str(score.num_rows),
        f"{score.majority_value:.3f}",
        format_p_value(score.p_value).removeprefix("= ") + chance,
        str(score.num_overlap),
    )


def describe_answer(served: ServingRecord) -> str:
    """Return the served answer in words, with the label's Chinese name where the task has one."""
    label = served.answer.get("label")
    if label is None:
        return str(served.answer)
    task = all_tasks().get(served.task)
    title = task.label_titles.get(label, "") if task else ""
    shown = f"{label} ({title})" if title else str(label)
    return f"{shown}, probability {served.answer['score']:.3f}"


def next_places(spec: RunSpec, result: RunResult) -> dict[str, str]:
    """Return where to look next."""
    done = {stage.stage for stage in result.stages}
    places = {}
    if Stage.LEADERBOARD in done:
        folder = spec.output_of(Stage.LEADERBOARD)
        places["board"] = storage.join(folder, "leaderboard.html")
    if Stage.TRAINING in done:
        places["curve"] = storage.join(spec.output_of(Stage.TRAINING), "loss.png")
    if result.stages:
        places["lineage"] = f"fsb records tree {result.stages[-1].places[0]}"
    if Stage.LEADERBOARD in done and result.stages[-1].stage is Stage.LEADERBOARD:
        places["lineage"] = f"fsb records tree {spec.output_of(Stage.EVALUATION)}"
    return places


def _stage_rows(result: StageResult) -> list[tuple[str, ...]]:
    seconds = f"{result.seconds:.1f}" + (" (kept)" if result.was_complete else "")
    if not result.records:
        return [(result.stage.value, seconds, result.places[0], "leaderboard.md, .json, .html")]
    return [
        (
            result.stage.value if number == 0 else "",
            seconds if number == 0 else "",
            place,
            describe(record),
        )
        for number, (place, record) in enumerate(zip(result.places, result.records, strict=True))
    ]


def _find(result: RunResult, kind: type[R]) -> R | None:
    for stage in result.stages:
        for record in stage.records:
            if isinstance(record, kind):
                return record
    return None
