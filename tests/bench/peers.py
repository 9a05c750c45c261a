"""Peers of a benchmark in virtual environments of their own: theirs and our pins do not mix.

`tests/bench/requirements/NAME.txt` pins a peer; its environment is made once under `.peers/` and
made anew when the file changes. A peer's program is run as a subprocess and prints one JSON line.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

REQUIREMENTS = Path(__file__).parent / "requirements"


def peer_python(name: str) -> Path:
    """Return the interpreter of a peer's environment; makes it when it is not there."""
    text = (REQUIREMENTS / f"{name}.txt").read_bytes()
    folder = ROOT / ".peers" / f"{name}-{hashlib.sha256(text).hexdigest()[:8]}"
    python = folder / "bin/python"
    done = folder / ".complete"
    if not done.is_file():
        print(f"making the environment of the peer {name} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS / f"{name}.txt")], check=True)
        done.touch()
    return python


def run_peer(
    name: str,
    program: str,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 1800,
) -> dict[str, Any]:
    """Run a program text in a peer's environment and return the last line it printed, as JSON."""
    done = subprocess.run(
        [str(peer_python(name)), "-c", program, *arguments],
        capture_output=True, text=True, timeout=timeout_seconds, check=False,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"peer {name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
