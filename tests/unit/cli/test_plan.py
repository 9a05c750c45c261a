# SPDX-License-Identifier: Apache-2.0
"""`fsb plan`: its table, its JSON, the lines it writes, and what it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from pyfsb.cli import plan
from pyfsb.config import RunSpec
from pyfsb.errors import ConfigError, FsbError
from pyfsb.schema import parse, parse_yaml_mapping
from tests.helpers.golden import assert_golden

SPEC = """
name: plan
output: runs/plan
model: {name: Erlangshen-MegatronBert-1.3B}
data: {corpus: ["*.jsonl"]}
batch: {tokens: 1048576}
training: {energy: {price_per_device_hour: 2.0, watts_per_device: 450}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return str(path)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    plan.add_commands(parser.add_subparsers())
    parsed = parser.parse_args(list(arguments))
    return parsed.handler(parsed)


def test_the_table_names_the_best_layout(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", spec, "--pool", "a100-40", "--nodes", "1..4", "--corpus-bytes", "280e9") == 0
    out = capsys.readouterr().out
    assert "1.257B parameters" in out
    assert "96,054 steps" in out
    rows = [line for line in out.splitlines() if "ZeRO-" in line]
    assert len(rows) == 4
    assert sum("best" in row for row in rows) == 1
    assert "as written" in rows[-1]


def test_json_is_what_it_was(
    spec: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    run(
        "plan",
        spec,
        "--pool",
        "a100-40",
        "--nodes",
        "4",
        "--corpus-tokens",
        "1e11",
        "--output",
        "json",
    )
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["fits"]
    rounded = {
        "spec": found["spec"],
        "num_parameters": found["num_parameters"],
        "num_steps": found["num_steps"],
        "days": round(found["best"]["days"], 2),
        "device_hours": round(found["best"]["device_hours"]),
        "cost": round(found["best"]["cost"]),
        "kwh": round(found["best"]["kwh"]),
        "mfu": round(found["best"]["mfu"], 3),
        "device_gigabytes": round(found["best"]["memory"]["device"] / 1e9, 1),
    }
    assert_golden(request, "plan_megatron_1_3b.json", rounded)


def test_the_written_lines_are_a_spec(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("plan", spec, "--nodes", "2", "--corpus-tokens", "1e9", "--write")
    lines = parse_yaml_mapping(capsys.readouterr().out, source="stdout")
    assert set(lines) == {"batch", "parallelism"}
    value = parse_yaml_mapping(SPEC, source="spec")
    value["batch"] |= lines["batch"]
    merged = parse(RunSpec, {**value, "parallelism": lines["parallelism"]}, source="merged")
    assert merged.parallelism.num_processes == 8
    assert merged.parallelism.precision == "bf16"


def test_a_layout_that_does_not_fit_is_explained_below_the_table(
    spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        "plan",
        spec,
        "--pool",
        "a100-40",
        "--corpus-tokens",
        "1e9",
        "--set",
        "batch.micro_tokens=65536",
    )
    out = capsys.readouterr().out
    assert "(too many)" in out
    assert "GB too few; this would fit: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pool", "a100-8", "--corpus-tokens", "1e9"), "did you mean 'a100-80'"),
        (("--nodes", "4...8", "--corpus-tokens", "1e9"), "expected a number, a list 4,8 or a range"),
        (("--corpus-tokens", "1e9", "--corpus-bytes", "1e9"), "give one of them"),
        ((), "--corpus-tokens N or --corpus-bytes N"),
        (("--pool", "v100-32", "--corpus-tokens", "1e9", "--set", "parallelism.precision=bf16"), "take fp16"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused(
    spec: str, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(FsbError, match=message.replace(".", r"\.")):
        run("plan", spec, *arguments)


def test_a_model_for_which_nothing_fits_says_how_much_is_missing(spec: str, tmp_path: Path) -> None:
    pool = tmp_path / "tiny.yaml"
    pool.write_text(
        "memory_bytes: 2e9\nfp16_flops: 1e14\nfp32_flops: 1e13\nmemory_bandwidth: 1e12\n"
        "num_multiprocessors: 80\nclock_hertz: 1e9\nintra_bandwidth: 1e10\ninter_bandwidth: 1e10\n"
    )
    with pytest.raises(
        ConfigError,
        match=r"none of \d+ layouts fits\. The nearest: 1\.26B parameters .* GB too few",
    ):
        run("plan", spec, "--pool", str(pool), "--corpus-tokens", "1e9")


def test_a_spec_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="which SPEC"):
        run("plan")


def test_claims_flag_the_inconsistent_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--explain-claims", "--output", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["model"] for item in found if not item["is_consistent"]] == [
        "Wenzhong-GPT2-3.5B", "Randeng-MegatronT5-770M", "Yuyuan-GPT2-3.5B",
    ]  # fmt: skip
    run("plan", "--explain-claims")
    assert "inconsistent" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "-1", "inf"])
def test_amounts_are_above_zero(spec: str, value: str) -> None:
    with pytest.raises(SystemExit):
        run("plan", spec, "--corpus-tokens", value)
