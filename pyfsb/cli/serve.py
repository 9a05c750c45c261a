# SPDX-License-Identifier: Apache-2.0
"""`fsb serve MODEL`: serve a checkpoint over KServe's V1 and V2 protocols until Ctrl-C."""

from __future__ import annotations

import argparse
import sys

from pyfsb.cli.arguments import Commands
from pyfsb.config import Family
from pyfsb.processes import run_child


def add_commands(commands: Commands) -> None:
    """Add the verb; further options are those of `python -m serving`."""
    parser = commands.add_parser("serve", help="serve a checkpoint over HTTP until Ctrl-C")
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder, s3:// prefix or name")
    parser.add_argument("--name", help="name in the URL (default: the checkpoint's task or model)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any (default: %(default)s)")
    parser.add_argument(
        "--family", choices=[family.value for family in Family],
        help="what to ask the model for (default: what it was trained for)",
    )  # fmt: skip
    parser.set_defaults(handler=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "serving", "--checkpoint", arguments.model]
    command += ["--host", arguments.host, "--port", str(arguments.port)]
    if arguments.name:
        command += ["--name", arguments.name]
    if arguments.family:
        command += ["--family", arguments.family]
    end = run_child(command, grace_seconds=35.0)
    return 0 if end.signal_number is not None else end.code
