"""Golden files: parsed values compared both ways, rewritten with `--update-golden`."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "golden"


def assert_golden(request: pytest.FixtureRequest, name: str, value: Any) -> None:
    """Compare a value with `tests/golden/NAME` (JSON, or text for other endings)."""
    path = FOLDER / name
    text = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    )
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.is_file(), f"{path} is missing: run `make golden`"
    expected = path.read_text(encoding="utf-8")
    if expected != text:
        lines = difflib.unified_diff(
            expected.split("\n"), text.split("\n"), f"golden/{name}", "now", lineterm=""
        )
        pytest.fail("\n".join(lines))
