# SPDX-License-Identifier: Apache-2.0
"""`fsb schema`: JSON schemas for editors."""

from __future__ import annotations

import argparse

from pyfsb.cli.arguments import Commands, print_json
from pyfsb.config import RunSpec, TaskSpec
from pyfsb.errors import EXIT_OK
from pyfsb.schema import Json, Schema

_SCHEMAS: dict[str, type[Schema]] = {"run": RunSpec, "task": TaskSpec}


def add_commands(commands: Commands) -> None:
    """Add the verb."""
    parser = commands.add_parser("schema", help="JSON schema of a spec, for editors")
    parser.add_argument(
        "kind", choices=tuple(_SCHEMAS), nargs="?", default="run",
        help="run spec or task of one's own (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(handler=_print)


def json_schema(kind: str) -> Json:
    """Return the JSON schema of a kind of spec (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_SCHEMAS[kind].model_json_schema(),
    }


def _print(arguments: argparse.Namespace) -> int:
    print_json(json_schema(arguments.kind))
    return EXIT_OK
