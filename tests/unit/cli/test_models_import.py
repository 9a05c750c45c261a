"""`fsb models import` and `fsb models export` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb.cli.__main__ import main
from pyfsb.config import Family
from pyfsb.errors import EXIT_CONFIG, EXIT_DATA, EXIT_OK
from tests.helpers.models import write_model

NAME = "Erlangshen-MegatronBert-1.3B"


def test_import_then_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_model(tmp_path / "from", NAME, Family.FILL_MASK)
    capsys.readouterr()  # what libraries say while the folder is written
    told = ["models", "import", str(source), "--model", NAME, "--to", str(tmp_path / "to")]
    assert main([*told, "--output", "json"]) == EXIT_OK
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == NAME
    assert record["weights_written"][0]["path"] == "model.safetensors"
    told = [
        "models",
        "export",
        str(tmp_path / "to"),
        "--to",
        "hf",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(told) == EXIT_OK
    assert "README.md" in capsys.readouterr().out
    assert (tmp_path / "out" / "README.md").is_file()


def test_the_table_lists_both_digests_and_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_model(tmp_path / "from", NAME, Family.CLASSIFY)
    told = ["models", "import", str(source), "--model", NAME, "--to", str(tmp_path / "to")]
    assert main(told) == EXIT_OK
    printed = capsys.readouterr().out
    assert "read    model.safetensors  sha256:" in printed
    assert "written model.safetensors  xxh3:" in printed
    assert "config.hidden_size: 32, entry: 2048" in printed


def test_errors_have_their_exit_codes(tmp_path: Path) -> None:
    told = ["models", "import", str(tmp_path / "none"), "--to", str(tmp_path / "to"), "--model"]
    assert main([*told, NAME]) == EXIT_DATA
    assert main([*told, "Erlangshen-Nothing"]) == EXIT_CONFIG
    source = write_model(tmp_path / "from", NAME, Family.FILL_MASK)
    told = ["models", "export", str(source), "--to", "hf", "--output", str(tmp_path / "out")]
    assert main(told) == EXIT_CONFIG
    assert main([*told, "--model", NAME, "--family", "fill_mask"]) == EXIT_OK


@pytest.mark.parametrize(
    "told", ["--max-gib nan", "--max-gib inf", "--memory-gib -1", "--timeout-seconds 0"]
)
def test_limits_that_are_none(
    told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "import", str(tmp_path), "--model", NAME, "--to", str(tmp_path / "to")]
    assert main([*command, *told.split()]) == EXIT_CONFIG
    assert f"{told}: expected a number above 0" in capsys.readouterr().err


def test_export_into_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["models", "export", NAME, "--to", "hf", "--output", "."]) == EXIT_CONFIG
    assert "name a folder to make" in capsys.readouterr().err
