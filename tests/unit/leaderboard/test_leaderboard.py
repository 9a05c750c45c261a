from __future__ import annotations

import html.parser
import json
from pathlib import Path

import pytest

from pyfsb import records
from pyfsb.errors import DataError
from pyfsb.leaderboard.build import build_leaderboard
from pyfsb.leaderboard.rank import rank_reports
from pyfsb.leaderboard.render import to_html, to_json, to_markdown
from pyfsb.leaderboard.store import find_reports
from pyfsb.records import EvalReport, GateResult, Score
from tests.helpers.golden import assert_golden
from tests.unit.evaluation.test_evaluation import scored


def score(task: str, runner: str, value: float, **changes: object) -> Score:
    base = scored(["a", "b"], [["a", "b"]])
    fields = {
        "task": task, "runner": runner, "value": value, "seed_values": (value,),
        "interval": (value - 0.05, value + 0.05), "p_value": 1e-9, "num_rows": 400,
        "num_all_rows": 420, "num_overlap": 20, "value_all_rows": value + 0.01,
    }  # fmt: skip
    return base.model_copy(update={**fields, **changes})


def report(run: str, *scores: Score) -> EvalReport:
    gate = GateResult(task="t", runner="finetune", has_passed=True, reason="r", p_value=0.0)
    return EvalReport(
        run=run, created_at="2026-01-01T00:00:00+00:00", seconds=1.0, config_hash=run,
        seeds=(1,), model="Erlangshen-MegatronBert-1.3B", num_parameters=1_460_000,
        scores=scores, gate=gate, example={},
    )  # fmt: skip


REPORTS = [
    report("乙", score("tnews", "finetune", 0.5), score("tnews", "ngram", 0.6)),
    report(
        "a|<b>",
        score("tnews", "finetune", 0.6, seeds=(1, 2), seed_values=(0.58, 0.62)),
        score("ocnli", "finetune", 0.33, p_value=0.4, is_degenerate=True, num_truncated=3),
    ),
]


def test_rows_are_ranked_by_score_and_ties_share_a_rank() -> None:
    boards = rank_reports(REPORTS)
    assert [board.task for board in boards] == ["ocnli", "tnews"]
    tnews = [(row.rank, row.run, row.score.runner) for row in boards[1].rows]
    assert tnews == [(1, "a|<b>", "finetune"), (1, "乙", "ngram"), (3, "乙", "finetune")]


def test_the_order_of_reports_does_not_matter() -> None:
    assert rank_reports(REPORTS) == rank_reports(reversed(REPORTS))


def test_scores_on_another_file_are_on_another_board() -> None:
    other = report("c", score("tnews", "finetune", 0.9, split_hash="other"))
    assert len(rank_reports([*REPORTS, other])) == 3


def test_renderings_are_golden(request: pytest.FixtureRequest) -> None:
    boards = rank_reports(REPORTS)
    assert_golden(request, "leaderboard.md", to_markdown(boards))
    assert_golden(request, "leaderboard.html", to_html(boards))
    assert_golden(request, "leaderboard.json", to_json(boards))


def test_an_interval_names_the_score_it_is_about_where_seeds_differ() -> None:
    text = to_markdown(rank_reports(REPORTS))
    assert "| 0.600 ± 0.028 | 0.550–0.650 (0.580) |" in text
    assert "| 0.600 | 0.550–0.650 |" in text


def test_names_cannot_break_the_page() -> None:
    boards = rank_reports(REPORTS)
    assert "<b>" not in to_html(boards)
    assert "a&#x27;" not in to_html(boards)
    assert "a\\|<b>" in to_markdown(boards)
    parser = html.parser.HTMLParser()
    parser.feed(to_html(boards))


def test_chance_is_called_chance() -> None:
    text = to_markdown(rank_reports(REPORTS))
    assert "not distinguishable from majority, answers almost always the same, 3 texts cut" in text


def test_reports_are_found_below_folders_once(tmp_path: Path) -> None:
    for name, item in (("x", REPORTS[0]), ("y", REPORTS[1]), ("copy", REPORTS[0])):
        records.write_record(item, str(tmp_path / f"runs/{name}/evaluation"))
    found = find_reports([str(tmp_path / "runs"), str(tmp_path / "runs/x/evaluation")])
    assert [item.run for item in found] == ["a|<b>", "乙"]
    build_leaderboard([str(tmp_path / "runs")], str(tmp_path / "board"))
    value = json.loads((tmp_path / "board/leaderboard.json").read_text())
    assert len(value["boards"]) == 2
    assert {path.name for path in (tmp_path / "board").iterdir()} == {
        "leaderboard.md", "leaderboard.json", "leaderboard.html",
    }  # fmt: skip


def test_a_broken_report_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records.write_record(REPORTS[0], str(tmp_path / "x/evaluation"))
    (tmp_path / "y/evaluation").mkdir(parents=True)
    (tmp_path / "y/evaluation/record.json").write_text("{}")
    assert len(find_reports([str(tmp_path)])) == 1
    assert "left out" in caplog.text


def test_no_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no EvalReport at or below"):
        find_reports([str(tmp_path)])
