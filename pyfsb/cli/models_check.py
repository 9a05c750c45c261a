# SPDX-License-Identifier: Apache-2.0
"""`fsb models check`: shows that entries of the registry work, tiny or at full size."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from pyfsb.cli.arguments import Commands, add_output, print_json, print_table
from pyfsb.errors import EXIT_DATA, EXIT_OK, ConfigError
from pyfsb.registry import ModelEntry, all_entries, find_entry

if TYPE_CHECKING:
    from pyfsb.evaluation.model_check import CheckResult


def add_verb(verbs: Commands) -> None:
    """Add `check` to the verbs of `fsb models`."""
    parser = verbs.add_parser(
        "check", help="train, export, reload and ask a tiny variant of entries, or count full ones"
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="names of entries (default: none; see --all)"
    )
    parser.add_argument("--all", action="store_true", dest="is_all", help="every entry")
    parser.add_argument(
        "--full-size", action="store_true",
        help="build the published size without memory and count it, in place of the tiny way "
        "through all stages (default: off)",
    )  # fmt: skip
    add_output(parser)
    parser.set_defaults(handler=_check)


def _check(arguments: argparse.Namespace) -> int:
    if bool(arguments.names) == arguments.is_all:
        raise ConfigError("say which entries: names, or --all")
    entries = all_entries() if arguments.is_all else [find_entry(n) for n in arguments.names]
    from pyfsb.evaluation.model_check import check_full_size, check_tiny, single_process

    check = check_full_size if arguments.full_size else check_tiny
    group = contextlib.nullcontext() if arguments.full_size else single_process()
    results = []
    with group:
        for number, entry in enumerate(entries, start=1):
            _tell(f"{number}/{len(entries)} {entry.name}")
            results.append(check(entry))
    failed = [result for result in results if not result.is_ok]
    if arguments.form == "json":
        print_json([result.to_json() for result in results])
    else:
        print_table(
            f"{len(results) - len(failed)} of {len(results)} entries work",
            ("name", "works", "parameters", "of the name", "loss", "seconds", "answer or note"),
            [_describe(entry, result) for entry, result in zip(entries, results, strict=True)],
        )
    return EXIT_DATA if failed else EXIT_OK


def _tell(text: str) -> None:
    """Say on stderr what is being checked; only on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


def _describe(entry: ModelEntry, result: CheckResult) -> tuple[str, ...]:
    expected = result.expected_parameters
    return (
        entry.name,
        "yes" if result.is_ok else "NO",
        f"{result.parameters / 1e6:,.2f} M",
        "" if expected is None else f"{expected / 1e6:,.0f} M",
        ""
        if result.first_loss is None
        else f"{result.first_loss:.3f} → {result.last_loss or 0.0:.3f}",
        f"{result.seconds:.1f}",
        result.note or result.answer,
    )
