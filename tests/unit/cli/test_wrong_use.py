"""Wrong use of the command line ends with one line before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyfsb.cli.__main__ import main
from pyfsb.cli.run import check
from pyfsb.config import load_spec
from pyfsb.errors import CheckpointError
from tests.conftest import ROOT

DEMO = str(ROOT / "docs/examples/demo.yaml")
Fsb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fsb(capsys: pytest.CaptureFixture[str]) -> Fsb:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("wrong", [["predict", "m", "a", "--nothing"], ["models", "list", "x"]])
def test_what_no_verb_takes_is_named(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(wrong)
    assert f"unrecognized arguments: {wrong[-1]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--gpu-memory", "0.1", "needs about 1.7 GB to serve (the nearest of"),
        ("--latency", "0.0001", "ms (estimated) (the nearest of"),
        ("--tokens", "100000", "Erlangshen-Longformer-110M reads 4096 tokens at most"),
        ("--languages", "xx", "does not read xx"),
        ("--limit", "1.5", "--limit 1.5: expected a whole number of 1 or more"),
        ("--tokens", "0", "--tokens 0: expected a whole number of 1 or more"),
    ],
)
def test_a_wish_that_no_model_fulfils_is_one_line(
    fsb: Fsb, option: str, value: str, text: str
) -> None:
    code, out, error = fsb("models", "recommend", "--task", "tnews", option, value)
    assert (code, out) == (2, "")
    assert text in error
    assert error.count("\n") == 1


def test_an_impossible_wish_keeps_its_json(fsb: Fsb) -> None:
    code, out, error = fsb(
        "models", "recommend", "--task", "tnews", "--gpu-memory", "0.1", "--output", "json"
    )
    assert code == 2
    assert '"recommended": []' in out
    assert "none of" in error


def test_what_was_left_out_has_a_line_for_each_reason(fsb: Fsb) -> None:
    _, out, _ = fsb("models", "recommend", "--task", "tnews", "--limit", "1")
    lines = out.split("left out:\n")[1].splitlines()
    assert len({line.split(":")[0] for line in lines}) == len(lines)


def test_unknown_tasks_and_empty_words_say_what_there_is(fsb: Fsb) -> None:
    code, _, error = fsb("models", "recommend", "--task", "摘要")
    assert code == 2
    assert "rewrite" in error
    code, out, error = fsb("models", "search", "")
    assert (code, out) == (2, "")
    assert "expected words" in error


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("hidden_size=129", "2 attention heads do not divide the width (hidden_size) 129"),
        ("hiden_size=128", "did you mean 'hidden_size'"),
        ("num_hidden_layers=0", "expected a whole number of 1 or more, such as 24"),
        ("num_hidden_layers=two", "num_hidden_layers = 'two': expected a whole number"),
        ("hidden_act=gelo", "did you mean 'gelu'"),
        ("hidden_dropout_prob=-0.5", "from 0 to below 1"),
    ],
)
def test_a_broken_config_is_refused_before_the_corpus_is_prepared(
    fsb: Fsb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, text: str
) -> None:
    monkeypatch.chdir(ROOT)
    code, _, error = fsb(
        "run", DEMO, "--set", f"model.config.{override}", "--set", f"output={tmp_path}/run"
    )
    assert code == 2
    assert text in error
    assert not list(tmp_path.iterdir())


def test_sound_overrides_need_no_deep_learning_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(__import__("sys").modules, "pyfsb.models.building", None)
    check(load_spec(DEMO))


def test_first_weights_that_are_not_there_are_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    spec = load_spec(DEMO, [f"model.checkpoint={tmp_path}/nothing", "model.config={}"])
    with pytest.raises(CheckpointError, match="no such folder"):
        check(spec)
    check(spec, runs_here=False)  # pods have other folders
