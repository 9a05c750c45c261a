"""Every kind of entry goes the whole way: text, training, export, reloading, an answer.

Entries that share architecture, objective, tokenizer and family differ in sizes only, which a tiny
variant replaces; one of each kind is enough here. `fsb models check --all` takes every entry.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from pyfsb.registry import ModelEntry, all_entries

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


def kind_of(entry: ModelEntry) -> tuple[str, ...]:
    return (entry.architecture, str(entry.objective), entry.tokenizer, str(entry.family))


NAMES = sorted({kind_of(entry): entry.name for entry in reversed(all_entries())}.values())


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "pyfsb.cli", "models", "check", *NAMES, "--output", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    return {found["name"]: found for found in json.loads(done.stdout)}


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_of_each_kind_learns_is_exported_and_answers(
    name: str, results: dict[str, dict[str, Any]]
) -> None:
    found = results[name]
    assert found["is_ok"], found["note"]
    assert found["last_loss"] < found["first_loss"]
    assert found["answer"]
    assert 10_000 < found["parameters"] < 1_000_000
