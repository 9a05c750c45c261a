"""Every ZeRO stage goes on exactly, over any number of processes; see helpers/zero_stages.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.helpers.zero_stages import CHAIN, HALF, REPEATED

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All trainings, by one process that forks its ranks: imports cost once."""
    folder: Path = tmp_path_factory.mktemp("stages")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.helpers.zero_stages", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=1150, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    content: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return content


@pytest.mark.parametrize("stages", ["00000", "11111", "22222", "33333", "31203"])
def test_a_chain_of_groups_is_one_training(stages: str, found: dict[str, Any]) -> None:
    """1, 2, 4, 2 and 1 processes in turn, also from stage to stage, without dropout."""
    whole, parts = found["whole"], found["chain"][stages]
    assert len(parts["losses"]) == CHAIN[-1][1]
    assert parts["losses"] == pytest.approx(whole["losses"], abs=1e-5)
    assert parts["norms"] == pytest.approx(whole["norms"], rel=1e-4)


@pytest.mark.parametrize("name", REPEATED)
def test_equal_groups_go_on_bit_equal_with_dropout(name: str, found: dict[str, Any]) -> None:
    _check_equal(found["repeat"][name])
    assert found["repeat"][name]["whole"]["losses"] == pytest.approx(
        found["repeat"]["0"]["whole"]["losses"], abs=1e-5
    )


@pytest.mark.parametrize("name", HALF)
def test_bf16_goes_on_bit_equal_too(name: str, found: dict[str, Any]) -> None:
    _check_equal(found["half"][name])
    whole = found["half"][name]["whole"]["losses"]
    assert whole == pytest.approx(found["repeat"]["0"]["whole"]["losses"], abs=0.05)
    assert whole != found["repeat"]["0"]["whole"]["losses"]


def _check_equal(runs: dict[str, Any]) -> None:
    for key in ("losses", "norms", "steps", "weight"):
        assert runs["parts"][key] == runs["whole"][key], key
