"""Recipes: they load, say what they do in sixty lines, and their arithmetic is right.

Every model of the registry has one of its own, or one that it shares: a further `fsb plan` line at
its top, whose settings make it that model's. That they train is shown by
`tests/integration/test_recipes.py`.
"""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfsb.cli.__main__ import build_parser
from pyfsb.config import ObjectiveName, RunSpec, Stage, load_spec
from pyfsb.objectives.span_corruption import corrupted_lengths
from pyfsb.registry import all_entries, find_entry
from pyfsb.training.estimates import Rates, estimate
from pyfsb.training.layouts import layout_of, parse_nodes
from pyfsb.training.planner import build_workload, explain_refusal
from pyfsb.training.pools import find_pool
from tests.conftest import ROOT

FOLDER = ROOT / "docs/recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
README = FOLDER / "README.md"
TABLE = r"(<!-- {}: [^\n]*-->\n)(.*?)(<!-- end of table -->)"
PRODUCT = re.compile(
    r"(\d+) rows? x (?:about )?([\d,]+) tokens[^#]*? x (\d+) devices? x (\d+) micro-steps?"
)
ROWS = re.compile(r"micro_tokens: (\d+) +# (\d+) rows? x ([\d,]+) tokens")
PLAN = re.compile(r"^#   (fsb plan .*(?:\n#     .*)*)$", re.MULTILINE)
SERVED = "its pretraining (MAP) was never published: served as it is"
NO_RECIPE = {
    "Taiyi-Roberta-124M-D": SERVED,
    "Taiyi-Roberta-124M-D-v2": SERVED,
    "Taiyi-vit-87M-D": SERVED,
}
"""Models that nobody can train as they were, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A `fsb plan` line at the top of a recipe."""

    path: Path
    arguments: Namespace
    spec: RunSpec

    def __str__(self) -> str:
        return f"{self.path.stem}-{self.spec.model.name}"


def read_lines(path: Path) -> list[Line]:
    """Return the plan lines of a recipe: of the model in it, then of those that share it."""
    parser, lines = build_parser(), []
    for found in PLAN.findall(path.read_text("utf-8")):
        words = shlex.split(re.sub(r" \\\n# +", " ", found))
        arguments = parser.parse_args(words[1:])
        spec = load_spec(str(path), arguments.overrides)
        lines.append(Line(path=path, arguments=arguments, spec=spec))
    return lines


LINES = [line for path in RECIPES for line in read_lines(path)]


def number(text: str) -> int:
    return int(text.replace(",", ""))


def longest_document(spec: RunSpec) -> int:
    """Return the tokens of the longest row that a model reads or writes."""
    objective = spec.objective.name or find_entry(spec.model.name).objective
    if Stage.TRAINING not in spec.stages or objective != ObjectiveName.SPAN_CORRUPTION:
        return spec.data.max_tokens
    spans = spec.objective.span_corruption
    return max(
        corrupted_lengths(
            spec.data.max_tokens - 2, noise_ratio=spans.noise_ratio,
            mean_span_tokens=spans.mean_span_tokens,
        )
    )  # fmt: skip


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
    (own, *_) = [line for line in LINES if line.path == path]
    assert not own.arguments.overrides


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_model_reads_rows_of_that_length(line: Line) -> None:
    """A length that the model does not have would be found only after the data were made."""
    spec = line.spec
    assert line.arguments.spec == str(line.path.relative_to(ROOT))
    assert find_entry(spec.model.name).name == spec.model.name
    assert longest_document(spec) <= find_entry(spec.model.name).max_tokens


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


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_recipe_fits_where_it_says(line: Line) -> None:
    """At full size, as it is written, on the nodes of the plan at its top."""
    spec, arguments = line.spec, line.arguments
    (nodes,) = parse_nodes(arguments.nodes)
    pool = find_pool(arguments.pool)
    layout = layout_of(spec, pool, num_nodes=nodes, devices_per_node=spec.parallelism.num_processes)
    workload = build_workload(spec, corpus_tokens=1e9)
    found = estimate(workload, layout, pool, Rates())
    assert found.fits, explain_refusal(workload, found, pool)


def test_every_model_has_a_recipe() -> None:
    covered = {line.spec.model.name for line in LINES}
    names = {entry.name for entry in all_entries()}
    assert covered | set(NO_RECIPE) == names
    assert not covered & set(NO_RECIPE)


def test_the_table_is_that_of_the_recipes(request: pytest.FixtureRequest) -> None:
    lines = [
        "| recipe | model | starts from | objective or task | tokens a step | devices | ZeRO |",
        "|---|---|---|---|---|---|---|",
        *(describe(path) for path in RECIPES),
    ]
    check_table("table", lines, request)


def test_the_table_of_models_is_that_of_the_registry(request: pytest.FixtureRequest) -> None:
    lines = ["| model | recipes |", "|---|---|"]
    for entry in all_entries():
        own = [line for line in LINES if line.spec.model.name == entry.name]
        cells = [f"[{line.path.stem}]({line.path.name})" + sharing(line) for line in own]
        lines.append(f"| {entry.name} | {', '.join(cells) or f'none: {NO_RECIPE[entry.name]}'} |")
    check_table("models", lines, request)


def check_table(name: str, lines: list[str], request: pytest.FixtureRequest) -> None:
    pattern, table = re.compile(TABLE.format(name), re.DOTALL), "\n".join(lines) + "\n"
    text = README.read_text("utf-8")
    if request.config.getoption("--update-golden"):
        README.write_text(pattern.sub(lambda found: found[1] + table + found[3], text), "utf-8")
        text = README.read_text("utf-8")
    found = pattern.search(text)
    assert found
    assert found[2] == table, "run pytest tests/unit/test_recipes.py --update-golden"


def sharing(line: Line) -> str:
    """Say that a recipe is another model's."""
    return ", changed as its top says" if line.arguments.overrides else ""


def describe(path: Path) -> str:
    spec, text = load_spec(str(path)), path.read_text("utf-8")
    start = yaml.safe_load(text)["model"].get("checkpoint", "random weights")
    if Stage.TRAINING in spec.stages:
        what = str(spec.objective.name or find_entry(spec.model.name).objective)
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
