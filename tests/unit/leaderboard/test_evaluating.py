from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from pyfsb import records
from pyfsb.leaderboard import evaluating
from tests.helpers.specs import tiny_spec
from tests.unit.engines.test_completion import eval_report
from tests.unit.test_versions import make_score


@pytest.mark.parametrize(
    ("rank", "code", "has_pages"), [("0", 0, True), ("1", 0, False), ("0", 3, False)]
)
def test_the_first_pod_makes_the_pages_of_a_good_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, code: int, has_pages: bool
) -> None:
    output = tmp_path / "out"
    records.write_record(eval_report(scores=(make_score(),)), str(output / "evaluation"))
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(tiny_spec(output)))
    asked: list[str] = []

    def run(uri: str) -> int:
        asked.append(uri)
        return code

    monkeypatch.setattr(evaluating, "run_evaluation", run)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys, "argv", ["x", "--spec", str(spec)])
    assert evaluating.main() == code
    assert asked == [str(spec)]
    assert (output / "leaderboard/leaderboard.md").is_file() is has_pages
