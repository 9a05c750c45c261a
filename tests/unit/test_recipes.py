"""Recipes: they load, say what they do in sixty lines, and their arithmetic is right.

That they train is shown by `tests/integration/test_recipes.py`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfsb.cli.__main__ import build_parser
from pyfsb.config import RunSpec, Stage, load_spec
from pyfsb.registry import find_entry
from pyfsb.training.estimates import Rates, estimate
from pyfsb.training.layouts import layout_of, parse_nodes
from pyfsb.training.planner import build_workload, explain_refusal
from pyfsb.training.pools import find_pool
from tests.conftest import ROOT

FOLDER = ROOT / "docs/recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
README = FOLDER / "README.md"
TABLE = re.compile(r"(<!-- table: [^\n]*-->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
PRODUCT = re.compile(
    r"(\d+) rows? x (?:about )?([\d,]+) tokens[^#]*? x (\d+) devices? x (\d+) micro-steps?"
)
ROWS = re.compile(r"micro_tokens: (\d+) +# (\d+) rows? x ([\d,]+) tokens")
PLAN = re.compile(r"^#   (fsb plan .*)$", re.MULTILINE)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def batch_of(spec: RunSpec) -> Any:
    return spec.batch if Stage.TRAINING in spec.stages else spec.evaluation.finetune.batch


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_is_short(path: Path) -> None:
    text = path.read_text("utf-8")
    spec = load_spec(str(path))
    assert spec.name == path.stem
    assert yaml.safe_load(text)["output"] == f"runs/{path.stem}"
    assert len(text.split("\n")) <= 61
    assert "# Source: " in text
    assert find_entry(spec.model.name).name == spec.model.name
    # A length that the model does not have would be found only after the data were made.
    assert spec.data.max_tokens <= find_entry(spec.model.name).max_tokens


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_arithmetic_of_a_recipe_is_right(path: Path) -> None:
    text, spec = path.read_text("utf-8"), load_spec(str(path))
    batch = batch_of(spec)
    found = PRODUCT.search(text)
    assert found, "no arithmetic beside batch.tokens"
    rows, tokens, devices, steps = map(number, found.groups())
    assert rows * tokens * devices * steps == batch.tokens
    found = ROWS.search(text)
    assert found
    assert number(found[2]) * number(found[3]) == number(found[1]) == batch.micro_tokens
    assert devices % spec.parallelism.num_processes == 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fits_where_it_says(path: Path) -> None:
    """At full size, as it is written, on the nodes of the plan at its top."""
    commands = PLAN.findall(path.read_text("utf-8"))
    assert len(commands) == 1
    arguments = build_parser().parse_args(shlex.split(commands[0])[1:])
    assert arguments.spec == str(path.relative_to(ROOT))
    spec = load_spec(str(path))
    (nodes,) = parse_nodes(arguments.nodes)
    layout = layout_of(
        spec, find_pool(arguments.pool), num_nodes=nodes,
        devices_per_node=spec.parallelism.num_processes,
    )  # fmt: skip
    workload = build_workload(spec, corpus_tokens=1e9)
    found = estimate(workload, layout, find_pool(arguments.pool), Rates())
    assert found.fits, explain_refusal(workload, found, find_pool(arguments.pool))


def test_the_table_is_that_of_the_recipes(request: pytest.FixtureRequest) -> None:
    lines = [
        "| recipe | model | starts from | objective or task | tokens a step | devices | ZeRO |",
        "|---|---|---|---|---|---|---|",
        *(describe(path) for path in RECIPES),
    ]
    table = "\n".join(lines) + "\n"
    text = README.read_text("utf-8")
    if request.config.getoption("--update-golden"):
        README.write_text(TABLE.sub(lambda found: found[1] + table + found[3], text), "utf-8")
        text = README.read_text("utf-8")
    found = TABLE.search(text)
    assert found
    assert found[2] == table, "run pytest tests/unit/test_recipes.py --update-golden"


def describe(path: Path) -> str:
    spec, text = load_spec(str(path)), path.read_text("utf-8")
    start = yaml.safe_load(text)["model"].get("checkpoint", "random weights")
    if Stage.TRAINING in spec.stages:
        what = spec.objective.name or find_entry(spec.model.name).objective
    else:
        what = ", ".join(spec.evaluation.tasks) or f"{spec.own_task.name} ({spec.own_task.family})"
    found = PRODUCT.search(text)
    assert found
    profile = spec.parallelism.profile or f"stage {spec.parallelism.zero_stage}"
    start = start if start == "random weights" else f"`{start}`"
    return (
        f"| [{path.stem}]({path.name}) | {spec.model.name} | {start} | {what} | "
        f"{batch_of(spec).tokens:,} | {found[3]} | {profile} |"
    )
