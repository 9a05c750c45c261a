"""What the ends of the ranks mean together, and how a rank leaves its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb.errors import ConfigError, DataError
from pyfsb.training.launcher import EXIT_FOLDER, interpret, leave_end, run_rank


@pytest.mark.parametrize(
    ("codes", "is_stopped", "meaning"),
    [
        ([143, 143], False, 143),  # another pod was told to stop, and all saved
        ([143], False, 129),  # one was killed, torchrun stopped the other one
        ([143], True, 143),  # one did not end within the grace
        ([129, 143], False, 129),  # one hung, torchrun stopped the other one
        ([129, 143], True, 143),
        ([130], True, 130),
        ([], False, 129),
        ([], True, 129),
        ([3, 129], False, 3),
        ([2], False, 2),
        ([75, 143], False, 75),
        ([1, 143], False, 1),
    ],
)
def test_a_lost_rank_is_told_from_a_stop(codes: list[int], is_stopped: bool, meaning: int) -> None:
    assert interpret(1, codes, num_ranks=2, is_stopped=is_stopped) == meaning


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("x = 1"), 2, "ConfigError: x = 1"),
        (DataError("row 1"), 3, "DataError: row 1"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:1] Connection closed by peer"), 129, None),
    ],
)
def test_a_rank_leaves_its_code_and_its_error(
    error: Exception, code: int, text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXIT_FOLDER, str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr("pyfsb.training.launcher.die_with_parent", lambda _: None)

    def main() -> int:
        raise error

    assert run_rank(main) == code
    assert json.loads((tmp_path / "3").read_text()) == {"code": code, "error": text}


def test_a_bug_of_ours_leaves_1_and_shows_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXIT_FOLDER, str(tmp_path))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("pyfsb.training.launcher.die_with_parent", lambda _: None)
    with pytest.raises(ZeroDivisionError):
        run_rank(lambda: 1 // 0)
    assert json.loads((tmp_path / "0").read_text())["code"] == 1


def test_nobody_is_told_outside_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EXIT_FOLDER, raising=False)
    leave_end(1, "x")
