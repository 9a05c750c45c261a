"""Cases computed by the original modules: configs, weights, inputs and outputs.

Tensor families lie in tests/golden/reference_models; those with texts, and further cases of any
family, are found below FSB_DATA (reference_models) or FSB_REFERENCE_MODELS (a folder of the same
form: FAMILY/CASE/config.json …).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
ABSOLUTE_TOLERANCE = 1e-5
RELATIVE_LOSS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ReferenceCase:
    """One case of one family."""

    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        """config.json: `model` holds the arguments of the original config class."""
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))

    def weights(self) -> dict[str, Tensor]:
        """Tensors under the original names, those stored once entered under their other names."""
        return load_file(self.folder / "weights.safetensors")

    def inputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "inputs.safetensors")

    def outputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "outputs.safetensors")

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def lines(self, name: str = "cases.jsonl") -> list[dict[str, Any]]:
        text = (self.folder / name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]


def _roots() -> list[Path]:
    roots = [GOLDEN / "reference_models"]
    if os.environ.get("FSB_DATA"):
        roots.append(Path(os.environ["FSB_DATA"]) / "reference_models")
    if os.environ.get("FSB_REFERENCE_MODELS"):
        roots.append(Path(os.environ["FSB_REFERENCE_MODELS"]))
    return roots


def _find(family: str) -> dict[str, Path]:
    """Return the folders of a family's cases by name, a case that lies in two roots once."""
    found: dict[str, Path] = {}
    seen: set[bytes] = set()
    for root in _roots():
        for folder in sorted((root / family).glob("*/")):
            if not (folder / "config.json").is_file():
                continue
            content = b"".join(
                hashlib.sha256(path.read_bytes()).digest() for path in sorted(folder.glob("*.*"))
            )
            if content not in seen:
                seen.add(content)
                # Another case of the same name is no reason to leave either out.
                name = folder.name if folder.name not in found else f"{folder.name}-{len(found)}"
                found[name] = folder
    return found


def reference_cases(family: str) -> Any:
    """Return a decorator that runs a test (argument `case`) on every case of a family."""
    params = [
        pytest.param(ReferenceCase(folder), id=f"{family}-{name}")
        for name, folder in _find(family).items()
    ]
    if not params:
        mark = [pytest.mark.data, pytest.mark.skip(reason=f"FSB_DATA has no {family}")]
        params = [pytest.param(None, id=f"{family}-none", marks=mark)]
    return pytest.mark.parametrize("case", params)
