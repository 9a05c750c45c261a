# SPDX-License-Identifier: Apache-2.0
"""The order of the board: a pure function of the reports.

Per task, rows go by the score on held-out rows without overlap; equal scores share a rank and
stand in the order of their names. Nothing is averaged over tasks: a mean over missing tasks or
over different splits says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyfsb.records import EvalReport, Score
from pyfsb.schema import Schema

SIGNIFICANCE = 0.001


class Row(Schema):
    """One line of a task's table."""

    rank: int
    """1 for the best; equal scores share it."""
    run: str
    """Name of the run."""
    model: str
    """Registry name, or the n-gram model."""
    num_parameters: int
    """Of the transformer; 0 for the n-gram model."""
    score: Score
    """Everything about the figure."""
    spread: float | None
    """Standard deviation over the seeds; None for one seed."""
    is_above_majority: bool
    """p < 0.001 of the first seed against the majority baseline."""
    report: str
    """Digest of the report."""


class Board(Schema):
    """One task's table."""

    task: str
    """Name of the task."""
    task_version: str
    """Version of its definition."""
    split_hash: str
    """Hash of the scored file: scores on another file are on another board."""
    rows: tuple[Row, ...]
    """Best first."""


def rank_reports(reports: Iterable[EvalReport]) -> tuple[Board, ...]:
    """Return a board for each task, version and scored file, sorted by task."""
    groups: dict[tuple[str, str, str], list[tuple[EvalReport, Score]]] = {}
    for report in reports:
        for score in report.scores:
            key = (score.task, score.task_version, score.split_hash)
            groups.setdefault(key, []).append((report, score))
    return tuple(
        Board(task=key[0], task_version=key[1], split_hash=key[2], rows=_ranked(groups[key]))
        for key in sorted(groups)
    )


def _ranked(scored: list[tuple[EvalReport, Score]]) -> tuple[Row, ...]:
    ordered = sorted(scored, key=lambda item: (-item[1].value, item[1].runner, item[0].run))
    rows: list[Row] = []
    for place, (report, score) in enumerate(ordered, start=1):
        is_tied = rows and rows[-1].score.value == score.value
        is_ngram = score.runner == "ngram"
        rows.append(
            Row(
                rank=rows[-1].rank if is_tied else place,
                run=report.run,
                model="character n-gram linear" if is_ngram else report.model,
                num_parameters=0 if is_ngram else report.num_parameters,
                score=score,
                spread=_spread(score.seed_values),
                is_above_majority=score.p_value < SIGNIFICANCE,
                report=report.digest,
            )
        )
    return tuple(rows)


def _spread(values: tuple[float, ...]) -> float | None:
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return float(variance**0.5)
