# SPDX-License-Identifier: Apache-2.0
"""Compile every pipeline into `pipelines/compiled/`; the files are committed and verified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from kfp import compiler

from pipelines.end_to_end import end_to_end

FOLDER: Final = Path(__file__).parent / "compiled"
PIPELINES: Final = {"end_to_end": end_to_end}


def compile_pipeline(name: str, folder: Path) -> Path:
    """Compile one pipeline to its intermediate representation.

    Args:
        name: One of `PIPELINES`.
        folder: Where `NAME.yaml` goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    compiler.Compiler().compile(PIPELINES[name], str(path))
    text = path.read_text(encoding="utf-8")
    # The SDK's patch version would make the file change without any change of ours.
    path.write_text(re.sub(r"(sdkVersion: kfp-\d+\.\d+)\.\d+", r"\1", text), encoding="utf-8")
    return path


def compile_all(folder: Path = FOLDER) -> list[Path]:
    """Compile every pipeline into a folder."""
    return [compile_pipeline(name, folder) for name in PIPELINES]
