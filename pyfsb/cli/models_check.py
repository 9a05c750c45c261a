# SPDX-License-Identifier: Apache-2.0
"""`fsb models check`: shows that entries of the registry work, tiny or at full size."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from pyfsb.cli.arguments import Commands, add_output, print_json, print_table
from pyfsb.errors import EXIT_DATA, EXIT_OK, ConfigError
from pyfsb.processes import run_child
from pyfsb.registry import all_entries, find_entry
from pyfsb.schema import Json


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
    with tempfile.TemporaryDirectory(prefix="fsb-check-") as folder:
        path = Path(folder) / "results.jsonl"
        command = [sys.executable, "-m", "pyfsb.evaluation.model_check_run", "--results", str(path)]
        command += ["--full-size"] if arguments.full_size else []
        end = run_child([*command, *(entry.name for entry in entries)])
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    results: list[Json] = [json.loads(line) for line in text.splitlines()]
    if arguments.form == "json":
        print_json(results)
    else:
        num_working = sum(result["is_ok"] for result in results)
        print_table(
            f"{num_working} of {len(entries)} entries work",
            ("name", "works", "parameters", "of the name", "loss", "seconds", "answer or note"),
            [_describe(result) for result in results],
        )
    if end.code not in (EXIT_OK, EXIT_DATA):
        return end.code
    is_complete = len(results) == len(entries)
    return EXIT_OK if is_complete and all(result["is_ok"] for result in results) else EXIT_DATA


def _describe(result: Json) -> tuple[str, ...]:
    expected, first = result["expected_parameters"], result["first_loss"]
    return (
        result["name"],
        "yes" if result["is_ok"] else "NO",
        f"{result['parameters'] / 1e6:,.2f} M",
        "" if expected is None else f"{expected / 1e6:,.0f} M",
        "" if first is None else f"{first:.3f} → {result['last_loss']:.3f}",
        f"{result['seconds']:.1f}",
        result["note"] or result["answer"],
    )
