# SPDX-License-Identifier: Apache-2.0
"""`fsb predict MODEL TEXT…`: ask a model on this machine, without a server."""

from __future__ import annotations

import argparse
import sys

import pyfsb
from pyfsb.cli.arguments import Commands, print_text
from pyfsb.errors import EXIT_OK
from pyfsb.schema import canonical_json


def add_commands(commands: Commands) -> None:
    """Add the verb."""
    parser = commands.add_parser("predict", help="ask a model, one JSON result a line")
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder, s3:// prefix or name")
    parser.add_argument(
        "texts", metavar="TEXT", nargs="*",
        help="texts; with a tab in it, a pair; none: the lines of stdin",
    )  # fmt: skip
    parser.set_defaults(handler=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    texts = arguments.texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    inputs: list[str | tuple[str, str]] = []
    for text in texts:
        first, tab, second = text.partition("\t")
        inputs.append((first, second) if tab else text)
    for result in pyfsb.load(arguments.model).predict(inputs):
        print_text(canonical_json(result.to_json()))
    return EXIT_OK
