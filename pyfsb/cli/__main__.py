# SPDX-License-Identifier: Apache-2.0
"""`fsb <noun> <verb>`: parse the arguments, call the library, print the result.

Results go to stdout, logs and errors to stderr; the exit code is the error's (`pyfsb.errors`).
torch is not imported before the arguments are parsed, and then only by verbs that need it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pyfsb
from pyfsb.cli import (
    cluster,
    doctor,
    leaderboard,
    models,
    plan,
    predict,
    records,
    run,
    schema,
    serve,
    stages,
    tasks,
)
from pyfsb.processes import run_stage_main

_MODULES = (
    run, plan, stages, predict, serve, cluster, doctor, records, leaderboard, models, tasks, schema,
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every noun and verb."""
    parser = argparse.ArgumentParser(
        prog="fsb",
        description="Name a model and take it from raw Chinese text to a served, scored endpoint.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fsb {pyfsb.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _MODULES:
        module.add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = build_parser().parse_args(arguments)
    return run_stage_main(lambda: int(parsed.handler(parsed)))


if __name__ == "__main__":
    sys.exit(main())
