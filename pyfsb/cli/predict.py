# SPDX-License-Identifier: Apache-2.0
"""`fsb predict MODEL TEXT…`: ask a model on this machine, without a server."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

import pyfsb
from pyfsb.cli.arguments import Commands, print_text
from pyfsb.config import Family
from pyfsb.errors import EXIT_OK, DataError
from pyfsb.schema import canonical_json, parse, parse_yaml_mapping

_WITH_FIELDS: Final = (Family.CHOOSE, Family.EXTRACT, Family.IMAGE_TEXT, Family.CLASSIFY_IMAGE)
"""Families whose inputs are more than a text or two."""


def add_commands(commands: Commands) -> None:
    """Add the verb."""
    parser = commands.add_parser(
        "predict",
        help="ask a model, one JSON result a line",
        usage="%(prog)s [-h] [--family FAMILY] MODEL [TEXT ...]",
    )
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder, s3:// prefix or name")
    texts = parser.add_argument(
        "texts", metavar="TEXT", nargs="+", default=[],
        help="texts; with a tab in it, a pair; of choices, extraction and images the JSON of an "
        "input; none: the lines of stdin",
    )  # fmt: skip
    # With nargs="*" argparse takes no text at all where an option stands between MODEL and TEXT.
    texts.required = False
    parser.add_argument(
        "--family", choices=[family.value for family in Family],
        help="what to ask the model for (default: what it was trained for)",
    )  # fmt: skip
    parser.set_defaults(handler=_predict)


def _read_lines() -> list[str]:
    """Return the lines of stdin that are not blank.

    Raises:
        DataError: One is not UTF-8, or there is none.
    """
    lines = []
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as exc:
            raise DataError(f"stdin line {number} is not UTF-8 at byte {exc.start + 1}") from None
        if text.strip():
            lines.append(text)
    if not lines:
        raise DataError("no text: give some behind MODEL, or lines on stdin")
    return lines


def _predict(arguments: argparse.Namespace) -> int:
    texts = arguments.texts or _read_lines()
    model = pyfsb.load(arguments.model, family=arguments.family)
    inputs: list[Any] = []
    for number, text in enumerate(texts):
        first, tab, second = text.partition("\t")
        if model.family in _WITH_FIELDS:
            value = parse_yaml_mapping(text, source=f"input {number}")
            inputs.append(parse(model.input_schema, value, source=f"input {number}"))
        else:
            inputs.append((first, second) if tab else text)
    for result in model.predict(inputs):
        print_text(canonical_json(result.to_json()))
    return EXIT_OK
