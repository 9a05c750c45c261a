# SPDX-License-Identifier: Apache-2.0
"""From rows and answers to a `Score`: a pure function, so a score can be made again offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pyfsb.config import Family
from pyfsb.data.labelled import Entity, Example, entities_text
from pyfsb.evaluation import metrics, statistics
from pyfsb.evaluation.predict import Answer
from pyfsb.evaluation.protocol import Task
from pyfsb.records import Score

METRIC_OF: Final = {
    Family.CLASSIFY: "accuracy",
    Family.PAIR: "accuracy",
    Family.TAG: "exact-match rows",
}
NO_ENTITIES: Final = "no entities"
KNOWN_ENTITIES: Final = "known entities"
"""Baselines of a tagging task: mark nothing, or what training rows mark."""


Baseline: TypeAlias = tuple[str, float]
"""Name and share of right rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What was scored, and where it lies."""

    task: Task
    runner: str
    seeds: tuple[int, ...]
    checkpoint: str
    """Folder of the first seed's model, relative to the report."""
    checkpoint_digest: str
    split_hash: str
    num_train: int
    num_excluded: int
    seconds: float
    set_name: str | None = None
    """The set of a mixture; None: all its rows together."""
    baseline: Baseline | None = None
    """What the score has to beat. None finds it from the rows."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Further figures for the record."""

    @property
    def name(self) -> str:
        """Name of what was scored: the task's, with that of the set behind it."""
        return self.task.name if self.set_name is None else f"{self.task.name}/{self.set_name}"


def score_answers(
    scored: Scored,
    rows: Sequence[Example],
    has_overlap: Sequence[bool],
    answers: Sequence[Sequence[Answer]],
    *,
    train: Sequence[Example] = (),
) -> Score:
    """Score one runner on one task.

    Args:
        scored: What it is.
        rows: Held-out rows with gold answers.
        has_overlap: For each row, whether training rows give it away.
        answers: For each seed its answers, one a row; the first seed is the one served.
        train: Training rows, for the baseline of a tagging task (see `tagging_baseline`).
    """
    gold = [row.gold or "" for row in rows]
    clean = [number for number, overlaps in enumerate(has_overlap) if not overlaps]
    clean_gold = [gold[number] for number in clean]
    first = [answer.value for answer in answers[0]]
    clean_first = [first[number] for number in clean]
    num_correct = _num_correct(clean_gold, clean_first)
    values = tuple(
        _num_correct(clean_gold, [seed[number].value for number in clean]) / max(1, len(clean))
        for seed in answers
    )
    label, share = scored.baseline or _baseline(
        scored.task, [rows[number] for number in clean], train
    )
    return Score(
        task=scored.name,
        task_version=scored.task.version,
        runner=scored.runner,
        metric=METRIC_OF[scored.task.spec.family],
        value=sum(values) / len(values),
        num_rows=len(clean),
        num_correct=num_correct,
        interval=statistics.wilson_interval(num_correct, len(clean)),
        seeds=scored.seeds,
        seed_values=values,
        majority_label=label,
        majority_value=share,
        p_value=statistics.binomial_p_value(num_correct, len(clean), share),
        value_all_rows=_num_correct(gold, first) / max(1, len(rows)),
        num_all_rows=len(rows),
        num_overlap=len(rows) - len(clean),
        num_train=scored.num_train,
        num_excluded=scored.num_excluded,
        num_truncated=sum(answer.is_truncated for answer in answers[0]),
        is_degenerate=metrics.is_degenerate(clean_first),
        details={**_details(scored.task, clean_gold, clean_first), **scored.details},
        checkpoint=scored.checkpoint,
        checkpoint_digest=scored.checkpoint_digest,
        split_hash=scored.split_hash,
        seconds=scored.seconds,
    )


def tagging_baseline(train: Sequence[Example], rows: Sequence[Example]) -> tuple[str, float]:
    """Return the better baseline of a tagging task and its share of right rows.

    Either no entity is marked, or every surface of a training entity, the longest first, gets the
    type that it most often has there; a surface that training rows more often leave unmarked gets
    none.

    Args:
        train: Rows whose entities are known.
        rows: Rows with gold entities; at least one.

    Source: the baseline of CoNLL-2002 and -2003, with "no entity" as one more type (our choice).
    """
    kinds = _surface_kinds(train)
    num_empty = sum(not row.entities for row in rows)
    num_known = sum(entities_text(_look_up(row.text, kinds)) == row.gold for row in rows)
    if num_known > num_empty:
        return KNOWN_ENTITIES, num_known / len(rows)
    return NO_ENTITIES, num_empty / len(rows)


def _baseline(task: Task, rows: Sequence[Example], train: Sequence[Example]) -> Baseline:
    if not rows:
        return "", 0.0
    if task.spec.family is Family.TAG:
        return tagging_baseline(train, rows)
    return statistics.majority([row.gold or "" for row in rows])


def _surface_kinds(train: Sequence[Example]) -> dict[str, str]:
    """Return the type of each surface that is more often of it than of another or of none."""
    counts: dict[str, Counter[str]] = {}
    for row in train:
        for entity in row.entities or ():
            surface = row.text[entity.start : entity.end]
            counts.setdefault(surface, Counter())[entity.type] += 1
    first = {surface: min(kinds) for surface, kinds in counts.items()}
    for row in train:
        marked = {(entity.start, entity.end) for entity in row.entities or ()}
        for found in _look_up(row.text, first):
            if (found.start, found.end) not in marked:
                counts[row.text[found.start : found.end]][""] += 1
    best = {
        surface: min(kinds, key=lambda kind: (-kinds[kind], kind))
        for surface, kinds in counts.items()
    }
    return {surface: kind for surface, kind in best.items() if kind}


def _look_up(text: str, kinds: Mapping[str, str]) -> Iterator[Entity]:
    """Yield the known surfaces of a text from left to right, at each place the longest."""
    lengths = sorted({len(surface) for surface in kinds}, reverse=True)
    place = 0
    while place < len(text):
        slices = (text[place : place + length] for length in lengths)
        surface = next((part for part in slices if part in kinds), "")
        if surface:
            yield Entity(start=place, end=place + len(surface), type=kinds[surface])
        place += len(surface) or 1


def _num_correct(gold: Sequence[str], answers: Sequence[str]) -> int:
    return sum(answer == right for answer, right in zip(answers, gold, strict=True))


def _details(task: Task, gold: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    if not gold:
        return {}
    if task.spec.family is Family.TAG:
        return {"entity_f1": metrics.entity_f1(gold, answers)}
    return {"macro_f1": metrics.macro_f1(gold, answers, task.spec.labels)}
