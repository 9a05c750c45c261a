# SPDX-License-Identifier: Apache-2.0
"""One table, three renderings: Markdown, JSON, HTML. The same boards give the same bytes."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from pyfsb.evaluation.statistics import format_p_value
from pyfsb.leaderboard.rank import Board, Row

HEADER = (
    "rank", "run", "model", "parameters", "runner", "score", "95 % interval", "n", "majority",
    "p", "all rows", "overlap", "train", "note",
)  # fmt: skip
_FOOT = (
    "score: share of correct held-out rows whose text is not in the training rows (mean over "
    "seeds, ± standard deviation); interval: Wilson, of the first seed, whose score stands behind "
    "it where there are several; majority: share of the most frequent label among those rows, of a "
    "tagging task the better of marking nothing and marking what training rows mark; p: one-sided "
    "exact binomial test of the first seed against it; all rows: the first seed's score with "
    "overlapping rows; overlap: rows left out for it."
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  color: #1b1f24; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid #d8dee4;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { background: #f6f8fa; } .text { text-align: left; } .chance td { color: #767c83; }
.bar { display: inline-block; height: .6rem; background: #2f6fde; border-radius: 2px; }
.chance .bar { background: #b4bac1; } footer { margin-top: 2rem; color: #57606a; }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; }
  th { background: #161b22; } th, td { border-color: #30363d; } .chance td { color: #8b949e; } }
"""


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts of a row, in the order of `HEADER`."""
    score = row.score
    spread = f" ± {row.spread:.3f}" if row.spread is not None else ""
    first = f" ({score.seed_values[0]:.3f})" if row.spread is not None else ""
    parameters = f"{row.num_parameters / 1e6:.2f} M" if row.num_parameters else "–"
    return (
        str(row.rank),
        row.run,
        row.model,
        parameters,
        score.runner,
        f"{score.value:.3f}{spread}",
        f"{score.interval[0]:.3f}–{score.interval[1]:.3f}{first}",
        str(score.num_rows),
        f"{score.majority_value:.3f} ({score.majority_label})",
        format_p_value(score.p_value).removeprefix("= "),
        f"{score.value_all_rows:.3f} of {score.num_all_rows}",
        str(score.num_overlap),
        str(score.num_train),
        note(row),
    )


def note(row: Row) -> str:
    """Return what a reader must know about a score."""
    notes = []
    if not row.is_above_majority:
        notes.append("not distinguishable from majority")
    if row.score.is_degenerate:
        notes.append("answers almost always the same")
    if row.score.num_truncated:
        notes.append(f"{row.score.num_truncated} texts cut")
    return ", ".join(notes)


def to_markdown(boards: Sequence[Board]) -> str:
    """Return the boards as a Markdown page."""
    parts = ["# Leaderboard", ""]
    for board in boards:
        parts += [f"## {board.task} (version {board.task_version})", ""]
        parts.append("| " + " | ".join(HEADER) + " |")
        parts.append("|" + "---|" * len(HEADER))
        for row in board.rows:
            escaped = [cell.replace("|", "\\|") for cell in cells(row)]
            parts.append("| " + " | ".join(escaped) + " |")
        parts.append("")
    return "\n".join([*parts, _FOOT, ""])


def to_json(boards: Sequence[Board]) -> str:
    """Return the boards as JSON, every figure in full."""
    value = {"boards": [board.to_json() for board in boards]}
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def to_html(boards: Sequence[Board]) -> str:
    """Return the boards as one page without scripts or outside resources."""
    body = "".join(_board_html(board) for board in boards)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fengshenbang leaderboard</title><style>{_STYLE}</style></head><body>"
        f"<h1>Fengshenbang leaderboard</h1>{body}<footer>{html.escape(_FOOT)}</footer>"
        "</body></html>\n"
    )


def _board_html(board: Board) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADER)
    rows = "".join(_row_html(row) for row in board.rows)
    title = f"{board.task} <small>version {html.escape(board.task_version)}</small>"
    return (
        f'<h2>{title}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row_html(row: Row) -> str:
    texts = [html.escape(cell) for cell in cells(row)]
    score = HEADER.index("score")
    width = round(80 * row.score.value)
    texts[score] += f' <span class="bar" style="width:{width}px"></span>'
    left = {HEADER.index(name) for name in ("run", "model", "runner", "note")}
    data = "".join(
        f'<td class="text">{text}</td>' if place in left else f"<td>{text}</td>"
        for place, text in enumerate(texts)
    )
    return f"<tr>{data}</tr>" if row.is_above_majority else f'<tr class="chance">{data}</tr>'
