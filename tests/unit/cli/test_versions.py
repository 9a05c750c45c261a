from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb.cli.__main__ import main
from tests.helpers.versions import gate, put_version
from tests.unit.test_versions import write_run


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["models", *arguments]) == 0
    return capsys.readouterr().out


def test_register_promote_and_roll_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSB_MODEL_STORE", str(tmp_path / "models"))
    tuned, _ = write_run(str(tmp_path / "a"))
    other, _ = write_run(str(tmp_path / "b"), step=2)
    assert "sentiment@1 is" in run(capsys, "register", "sentiment", tuned, "--note", "first")
    made = json.loads(run(capsys, "register", "sentiment", other, "--output", "json"))
    assert (made["number"], made["gate"]["has_passed"]) == (2, True)
    assert run(capsys, "promote", "sentiment@1", "production") == (
        "sentiment@production is sentiment@1\n"
    )
    moved = run(capsys, "promote", "sentiment@2", "production")
    assert moved == "sentiment@production is sentiment@2; rollback goes to sentiment@1\n"
    table = run(capsys, "versions", "sentiment")
    for part in ("production", "t by finetune 0.900 [0.800, 0.950]", "passed", "first"):
        assert part in table
    assert f"\n  {tuned}\n" in table  # whole, however narrow the terminal
    back = json.loads(run(capsys, "rollback", "sentiment", "production", "--output", "json"))
    assert back["version"] == 1
    listed = json.loads(run(capsys, "versions", "sentiment", "--output", "json"))
    assert [found["number"] for found in listed["versions"]] == [1, 2]
    assert listed["aliases"][0]["version"] == 1


def test_the_gate_is_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    put_version(store, 1, gate=gate(False))
    put_version(store, 2)
    assert main(["models", "promote", "sentiment@1", "production", "--store", store]) == 3
    assert "--ignore-gate" in capsys.readouterr().err
    run(capsys, "promote", "sentiment@2", "production", "--store", store, "--ignore-gate")
    table = run(capsys, "versions", "sentiment", "--store", store)
    assert "no report" in table
    assert "not passed: the figures" in table


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["versions", "sentimnt"], 2, "unknown model in"),
        (["promote", "sentiment@7", "p"], 2, "unknown version of sentiment (known: 1) '7'"),
        (["rollback", "sentiment", "p"], 2, "unknown alias of sentiment"),
        (["register", "x", "nothing"], 3, "neither a record.json nor a config.json"),
        (["promote", "sentiment", "p"], 2, "'sentiment': expected NAME@VERSION"),
    ],
)
def test_wrong_names_are_told(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    store = str(tmp_path / "models")
    put_version(store, 1)
    assert main(["models", *arguments, "--store", store]) == code
    assert words in capsys.readouterr().err
