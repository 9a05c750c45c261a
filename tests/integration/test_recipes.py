"""Every recipe trains: twenty steps at a tiny size, held to a golden curve each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.helpers.golden import FOLDER as GOLDEN
from tests.helpers.recipe_runs import NUM_STEPS, RECIPES

NUM_ENDS = 5  # steps at either end whose mean losses are compared


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The losses of all recipes, or what went wrong, from one process."""
    folder = tmp_path_factory.mktemp("recipes")
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.recipe_runs", str(folder)], cwd=ROOT,
        capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    losses: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return losses


@pytest.mark.parametrize("name", [path.stem for path in RECIPES])
def test_a_recipe_keeps_its_curve(
    name: str, found: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    losses = found[name]
    assert isinstance(losses, list), losses
    assert len(losses) == NUM_STEPS
    path: Path = GOLDEN / "recipes" / f"{name}.json"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(losses, indent=2) + "\n")
    assert losses == pytest.approx(json.loads(path.read_text()), abs=2e-5)
    assert sum(losses[-NUM_ENDS:]) < sum(losses[:NUM_ENDS])


def test_no_golden_curve_is_left_over() -> None:
    assert {path.stem for path in (GOLDEN / "recipes").iterdir()} == {path.stem for path in RECIPES}
