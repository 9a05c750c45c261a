from __future__ import annotations

import io
from pathlib import Path

import pytest

from pyfsb.cli.__main__ import build_parser, main
from pyfsb.config import Family
from pyfsb.errors import EXIT_OK, DataError
from tests.helpers.models import MODELS, write_model


def _stdin(typed: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8")


MIXED = [
    ["--family", "classify", "m", "甲", "乙"],
    ["m", "--family", "classify", "甲", "乙"],
    ["m", "甲", "乙", "--family", "classify"],
    ["m", "--family=classify", "--", "甲", "乙"],
]


@pytest.mark.parametrize("words", MIXED, ids=" ".join)
def test_the_option_may_stand_anywhere(words: list[str]) -> None:
    parsed = build_parser().parse_args(["predict", *words])
    assert (parsed.model, parsed.texts, parsed.family) == ("m", ["甲", "乙"], "classify")


@pytest.mark.parametrize("words", [["m"], ["m", "--family", "tag"], ["--family", "tag", "m"]])
def test_without_texts_none_are_asked_for(words: list[str]) -> None:
    parsed = build_parser().parse_args(["predict", *words])
    assert (parsed.model, parsed.texts) == ("m", [])


def test_a_model_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["predict", "--family", "tag"])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert "usage: fsb predict [-h] [--family FAMILY] MODEL [TEXT ...]" in error
    assert "required: MODEL" in error


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("很好\n坏".encode() + b"\xff\n", "stdin line 2 is not UTF-8 at byte 4"),
        (b"\n", "no text: give some behind MODEL"),
    ],
)
def test_lines_that_cannot_be_asked_are_refused(
    typed: bytes, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", _stdin(typed))
    assert main(["predict", "anything"]) == DataError.exit_code
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out


def test_texts_of_the_command_line_and_of_stdin_get_the_same_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "m", MODELS[0], Family.CLASSIFY, labels=("好", "坏"))
    capsys.readouterr()  # what libraries say while the folder is written
    assert main(["predict", str(folder), "--family", "classify", "很好", "很坏"]) == EXIT_OK
    given = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", _stdin("很好\n\n很坏\n".encode()))
    assert main(["predict", str(folder), "--family", "classify"]) == EXIT_OK
    assert capsys.readouterr().out == given
    assert given.count("\n") == 2 and "score" in given
