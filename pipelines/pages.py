# SPDX-License-Identifier: Apache-2.0
"""What a pipeline's tasks show in the UI: a loss curve, a score table, a service, a manifest.

Pure text from records and metrics, small and self-contained: no script, nothing to fetch. Called
by the components; the page of the leaderboard is made by the evaluation itself.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from pyfsb import storage
from pyfsb.config import RunSpec, Stage
from pyfsb.errors import DataError
from pyfsb.records import BaseRecord, CheckpointRecord, EvalReport, ServingRecord
from pyfsb.schema import Json

T = TypeVar("T", bound=BaseRecord)

METRICS_NAME: Final = "metrics.jsonl"
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 320, 56, 16, 36
_POINTS: Final = 400
_STYLE: Final = (
    "body{font:14px system-ui,sans-serif;margin:1rem;color:#222}svg{max-width:100%}"
    ".raw{fill:none;stroke:#9bb8d9}.mean{fill:none;stroke:#1f5fa8;stroke-width:2}"
    ".grid{stroke:#ddd}text{font-size:11px;fill:#555}"
)


def loss_curve(spec: RunSpec) -> str:
    """Return the page of a finished training's loss over its steps."""
    try:
        text = storage.read_text(storage.join(spec.output_of(Stage.TRAINING), METRICS_NAME))
    except DataError:  # a training of 0 steps
        text = ""
    steps = [json.loads(line) for line in text.splitlines() if line]
    return draw_curve(spec.name, [(step["step"], step["loss"]) for step in steps])


def draw_curve(title: str, points: Sequence[tuple[int, float]]) -> str:
    """Return a page with losses and their running mean over steps as a drawing."""
    if not points:
        return _page(title, "<p>No steps were taken.</p>")
    window = max(1, len(points) // 50)
    losses = [loss for _, loss in points]
    means = [
        sum(losses[max(0, end - window) : end]) / min(window, end)
        for end in range(1, len(losses) + 1)
    ]
    smooth = list(zip([step for step, _ in points], means, strict=True))
    low, high = min(losses), max(losses)
    scale = _Scale(points[0][0], points[-1][0], low, high)
    grid = "".join(scale.line(low + (high - low) * part / 4) for part in range(5))
    ends = "".join(scale.step(step) for step in sorted({points[0][0], points[-1][0]}))
    drawing = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="loss over steps">{grid}'
        f'<polyline class="raw" points="{scale.path(points)}"/>'
        f'<polyline class="mean" points="{scale.path(smooth)}"/>{ends}</svg>'
    )
    words = f"<p>Loss in nats per target over optimizer steps; bold: mean of {window}.</p>"
    return _page(title, drawing + words)


def score_table(report: EvalReport) -> str:
    """Return the scores of a run and its gate's decision as Markdown."""
    lines = [
        f"## {report.run}: {report.model}",
        "",
        f"Gate {'**passed**' if report.gate.has_passed else '**not passed**'}: "
        f"{report.gate.reason}",
        "",
        "| task | runner | metric | score | 95 % interval | majority | rows | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for score in report.scores:
        low, high = score.interval
        lines.append(
            f"| {score.task} | {score.runner} | {score.metric} | {score.value:.3f} | "
            f"{low:.3f} to {high:.3f} | {score.majority_value:.3f} | {score.num_rows} | "
            f"{score.p_value:.2g} |"
        )
    return "\n".join([*lines, ""])


def service_card(record: ServingRecord) -> str:
    """Return where a model answers and how to ask it, as Markdown."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
        for name, text in record.question.items()
        if text is not None
    ]
    request = json.dumps({"inputs": inputs}, ensure_ascii=False)
    shown = request.replace("'", "'\\''")
    lines = [
        f"## {record.run}: {record.task} by {record.runner}",
        "",
        f"Answers at `{record.endpoint}`." if record.is_running else "Answered, then stopped.",
        "",
        f"Question: `{json.dumps(record.question, ensure_ascii=False)}`",
        "",
        f"Answer: `{json.dumps(record.answer, ensure_ascii=False)}`",
        "",
        "```",
        f"curl -s {record.endpoint} -H 'Content-Type: application/json' -d '{shown}'",
        "```",
        "",
    ]
    return "\n".join(lines)


def model_card(record: CheckpointRecord, place: str) -> Json:
    """Return the small manifest that stands for weights in the UI: they stay where they are."""
    return {
        "uri": place.rstrip("/") + "/",
        "digest": record.digest,
        "run": record.run,
        "model": record.model,
        "architecture": record.architecture,
        "objective": record.objective,
        "num_parameters": record.num_parameters,
        "step": record.step,
        "num_tokens": record.num_tokens,
        "loss": record.loss,
    }


def served_checkpoint(report: EvalReport, place: str) -> str:
    """Return the folder of the checkpoint that a report's gate is about."""
    gate = report.gate
    score = next(s for s in report.scores if (s.task, s.runner) == (gate.task, gate.runner))
    return storage.resolve(score.checkpoint, place)


def only(records: Iterable[BaseRecord], kind: type[T]) -> T:
    """Return the record of a kind among a stage's.

    Raises:
        DataError: There is none.
    """
    for record in records:
        if isinstance(record, kind):
            return record
    raise DataError(f"the stage left no {kind.__name__}")


class _Scale:
    """Places of steps and losses in the drawing."""

    def __init__(self, first: int, last: int, low: float, high: float) -> None:
        self._first, self._low = first, low
        self._x = (_WIDTH - _LEFT - 8) / max(1, last - first)
        self._y = (_HEIGHT - _TOP - _BOTTOM) / ((high - low) or 1.0)

    def x(self, step: int) -> float:
        return _LEFT + (step - self._first) * self._x

    def y(self, loss: float) -> float:
        return _HEIGHT - _BOTTOM - (loss - self._low) * self._y

    def path(self, points: Sequence[tuple[int, float]]) -> str:
        """Return at most some hundred points, the last one always."""
        every = -(-len(points) // _POINTS)
        kept = [*points[:-1][::every], points[-1]]
        return " ".join(f"{self.x(step):.1f},{self.y(loss):.1f}" for step, loss in kept)

    def line(self, loss: float) -> str:
        y = self.y(loss)
        return (
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="4" y="{y + 4:.1f}">{loss:.3f}</text>'
        )

    def step(self, step: int) -> str:
        anchor = "start" if step == self._first else "end"
        return (
            f'<text x="{self.x(step):.1f}" y="{_HEIGHT - 12}" text-anchor="{anchor}">'
            f"step {step}</text>"
        )


def _page(title: str, body: str) -> str:
    words = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{words}</title>'
        f"<style>{_STYLE}</style><h1>{words}</h1>{body}</html>\n"
    )
