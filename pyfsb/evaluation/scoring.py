# SPDX-License-Identifier: Apache-2.0
"""From rows and answers to a `Score`: a pure function, so a score can be made again offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyfsb.config import Family
from pyfsb.data.labelled import Example
from pyfsb.evaluation import metrics, statistics
from pyfsb.evaluation.predict import Answer
from pyfsb.evaluation.protocol import Task
from pyfsb.records import Score

METRIC_OF: Final = {
    Family.CLASSIFY: "accuracy",
    Family.PAIR: "accuracy",
    Family.TAG: "exact-match rows",
}


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


def score_answers(
    scored: Scored,
    rows: Sequence[Example],
    has_overlap: Sequence[bool],
    answers: Sequence[Sequence[Answer]],
) -> Score:
    """Score one runner on one task.

    Args:
        scored: What it is.
        rows: Held-out rows with gold answers.
        has_overlap: For each row, whether training rows give it away.
        answers: For each seed its answers, one a row; the first seed is the one served.
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
    label, share = statistics.majority(clean_gold) if clean else ("", 0.0)
    return Score(
        task=scored.task.name,
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
        details=_details(scored.task, clean_gold, clean_first),
        checkpoint=scored.checkpoint,
        checkpoint_digest=scored.checkpoint_digest,
        split_hash=scored.split_hash,
        seconds=scored.seconds,
    )


def _num_correct(gold: Sequence[str], answers: Sequence[str]) -> int:
    return sum(answer == right for answer, right in zip(answers, gold, strict=True))


def _details(task: Task, gold: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    if not gold:
        return {}
    if task.spec.family is Family.TAG:
        return {"entity_f1": metrics.entity_f1(gold, answers)}
    return {"macro_f1": metrics.macro_f1(gold, answers, task.spec.labels)}
