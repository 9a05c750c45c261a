# SPDX-License-Identifier: Apache-2.0
"""The decision whether a scored model may be served: a pure function of scores and settings."""

from __future__ import annotations

from collections.abc import Sequence

from pyfsb.config import GateSpec, ServingSpec
from pyfsb.errors import ConfigError
from pyfsb.evaluation.statistics import format_p_value
from pyfsb.records import GateResult, Score


def decide_gate(
    scores: Sequence[Score], gate: GateSpec, serving: ServingSpec, *, task: str
) -> GateResult:
    """Decide about the task and runner that the spec wants to serve.

    The score must be above the majority baseline by the one-sided exact binomial test, on enough
    held-out rows without overlap. Of several seeds the first one's value is judged: its model is
    the one served. Choosing the best of several runners (the transformer, when they are equal)
    multiplies the p-value by their number (Bonferroni).

    Args:
        scores: Every score of the run.
        gate: Conditions.
        serving: Which runner.
        task: Which task.

    Raises:
        ConfigError: No score is about that task and runner.
    """
    candidates = [score for score in scores if score.task == task]
    if serving.runner != "best":
        candidates = [score for score in candidates if score.runner == serving.runner]
    if not candidates:
        known = ", ".join(sorted({f"{score.task} by {score.runner}" for score in scores}))
        raise ConfigError(
            f"serving.task = {task!r}, serving.runner = {serving.runner!r}: nothing was scored "
            f"that way; scored: {known or 'nothing'}"
        )
    chosen = max(candidates, key=lambda score: (score.seed_values[0], score.runner == "finetune"))
    p_value = min(1.0, chosen.p_value * len(candidates))
    low, high = chosen.interval
    figures = (
        f"{chosen.metric} {chosen.seed_values[0]:.3f} [{low:.3f}, {high:.3f}] on "
        f"{chosen.num_rows} rows, majority {chosen.majority_value:.3f} "
        f"({chosen.majority_label}), p {format_p_value(p_value)}"
    )
    if len(chosen.seeds) > 1:
        figures += f"; mean of {len(chosen.seeds)} seeds {chosen.value:.3f}"
    problems = []
    if chosen.num_rows < gate.min_rows:
        problems.append(f"fewer than {gate.min_rows} held-out rows without overlap")
    if p_value >= gate.max_p_value:
        problems.append(f"not above the majority at p < {gate.max_p_value:g}")
    if not gate.is_enabled:
        problems = []
        figures += "; the gate is off"
    return GateResult(
        task=task,
        runner=chosen.runner,
        has_passed=not problems,
        reason="; ".join([*problems, figures]),
        p_value=p_value,
    )
