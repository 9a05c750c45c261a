# SPDX-License-Identifier: Apache-2.0
"""Arguments and output forms that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

from pyfsb.config import RunSpec, load_spec

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_spec(parser: argparse.ArgumentParser) -> None:
    """Add the run spec and its overrides."""
    parser.add_argument("spec", metavar="SPEC", help="run spec, a YAML file or s3:// URI")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a setting, e.g. training.max_steps=100; the value is YAML; repeatable",
    )  # fmt: skip


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the choice between a table and JSON."""
    parser.add_argument(
        "--output", choices=("table", "json"), default="table", dest="form",
        help="form of the result on stdout (default: table)",
    )  # fmt: skip


def read_spec(arguments: argparse.Namespace) -> RunSpec:
    """Return the spec of parsed arguments."""
    return load_spec(arguments.spec, arguments.overrides)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_text(text: str) -> None:
    """Print a text on stdout."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, as wide as its content when it goes to a file."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    make_console().print(table)


def print_rows(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print narrow columns without lines between them; all but the last keep their words whole."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=number + 1 < len(header))
    for row in rows:
        table.add_row(*row)
    make_console().print(table)


def make_console() -> Console:
    """Return a console on stdout that neither guesses markup nor cuts lines in files."""
    width = None if sys.stdout.isatty() else 180
    return Console(markup=False, highlight=False, width=width, soft_wrap=False)
