from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb import records, storage
from pyfsb.engines.outcome import report_outcome, report_to_leaderboard, summarise
from pyfsb.errors import DataError
from pyfsb.leaderboard.store import find_reports
from tests.unit.engines.test_completion import eval_report
from tests.unit.test_records import dataset
from tests.unit.test_versions import make_score


def test_a_pod_tells_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write_record(dataset(), str(tmp_path))
    report_outcome(str(tmp_path / "nothing, and outside a pod nobody asks"))
    monkeypatch.setenv("FSB_TERMINATION_LOG", str(tmp_path / "log"))
    report_outcome(str(tmp_path))
    told = json.loads((tmp_path / "log").read_text())
    assert told == {"record": str(tmp_path), "digest": dataset().digest}
    with pytest.raises(DataError):
        report_outcome(str(tmp_path / "nothing"))


def test_a_report_tells_gate_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write_record(eval_report(), str(tmp_path))
    monkeypatch.setenv("FSB_TERMINATION_LOG", str(tmp_path / "log"))
    report_outcome(str(tmp_path))
    told = json.loads((tmp_path / "log").read_text())
    assert told["gate"] == {"passed": True, "reason": ""}
    assert told["scores"] == []


def test_a_report_tells_what_its_gate_is_about(tmp_path: Path) -> None:
    place = f"{tmp_path}/evaluation"
    score = make_score(checkpoint_digest="sha256:9")
    records.write_record(eval_report(scores=(score,)), place)
    told = summarise(place)
    assert told["servedCheckpoint"] == f"{place}/t/finetune-42"
    assert told["servedDigest"] == "sha256:9"
    assert told["scores"][0]["value"] == "0.9000"


def test_several_records_are_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [f"{tmp_path}/data/labelled", f"{tmp_path}/data/corpus"]
    records.write_record(dataset(num_kept=1), places[0])
    records.write_record(dataset(num_kept=2), places[1])
    monkeypatch.setenv("FSB_TERMINATION_LOG", str(tmp_path / "log"))
    report_outcome(*places)
    told = json.loads((tmp_path / "log").read_text())
    assert told["record"] == f"{tmp_path}/data"
    records.write_record(dataset(num_kept=3), places[1])
    assert summarise(*places)["digest"] != told["digest"]


def test_the_message_fits_what_kubernetes_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = tuple(make_score(task=f"任务{n}") for n in range(60))
    records.write_record(eval_report(scores=(make_score(), *scores)), str(tmp_path))
    monkeypatch.setenv("FSB_TERMINATION_LOG", str(tmp_path / "log"))
    report_outcome(str(tmp_path))
    text = (tmp_path / "log").read_bytes()
    assert len(text) <= 4096
    told = json.loads(text)
    assert told["gate"]["passed"] is True
    assert 10 < len(told["scores"]) < 61


def test_a_report_is_copied_to_the_leaderboard_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, store = f"{tmp_path}/run/evaluation", f"{tmp_path}/board"
    report = eval_report()
    records.write_record(report, place)
    report_to_leaderboard(place)  # nobody asks
    monkeypatch.setenv("FSB_LEADERBOARD", store)
    monkeypatch.setenv("RANK", "1")
    report_to_leaderboard(place)  # another pod does
    assert storage.list_files(store) == []
    monkeypatch.setenv("RANK", "0")
    for _ in range(2):
        report_to_leaderboard(place)
    (file,) = storage.list_files(store)
    assert file.path == f"reports/{report.digest.removeprefix('sha256:')}/evaluation/record.json"
    assert find_reports([store]) == [report]
