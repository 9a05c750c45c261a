from __future__ import annotations

import json
import logging

import pytest

from pyfsb.errors import ConfigError
from pyfsb.logs import configure_logging


def test_lines_go_to_stderr_with_level_and_name(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("pyfsb.x").info("字 %d", 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.rstrip().endswith("I pyfsb.x: 字 3")


def test_json_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FSB_LOG_FORMAT", "json")
    configure_logging()
    logging.getLogger("pyfsb.x").warning("文")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "pyfsb.x", "文")


def test_the_level_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FSB_LOG_LEVEL", "warning")
    configure_logging()
    logging.getLogger("pyfsb.x").info("quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "value"), [("FSB_LOG_LEVEL", "LOUD"), ("FSB_LOG_FORMAT", "xml")])
def test_wrong_settings_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}='{value}'; expected"):
        configure_logging()
