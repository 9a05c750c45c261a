from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb import records
from pyfsb.engines.outcome import report_outcome
from pyfsb.errors import DataError
from tests.unit.engines.test_completion import eval_report
from tests.unit.test_records import dataset


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
