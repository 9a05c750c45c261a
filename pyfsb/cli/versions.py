# SPDX-License-Identifier: Apache-2.0
"""`fsb models register|promote|rollback|versions`: the model store."""

from __future__ import annotations

import argparse

from pyfsb import versions
from pyfsb.cli.arguments import Commands, add_output, print_json, print_rows, print_text
from pyfsb.errors import EXIT_OK
from pyfsb.versions import Alias, ModelVersion


def add_verbs(verbs: Commands) -> None:
    """Add the verbs of the model store to the noun `models`."""
    register = verbs.add_parser("register", help="add a version of a model to the store")
    register.add_argument("name", metavar="NAME", help="name in the store")
    register.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or s3:// of the weights")
    register.add_argument(
        "--evaluation", metavar="URI",
        help="folder of the report about it (default: the one of the run that made it)",
    )  # fmt: skip
    _add_writing(register)
    register.set_defaults(handler=_register)
    promote = verbs.add_parser("promote", help="move an alias to a version")
    promote.add_argument("version", metavar="NAME@VERSION", help="e.g. sentiment@3")
    promote.add_argument("alias", metavar="ALIAS", help="e.g. production; a new one is made")
    promote.add_argument(
        "--ignore-gate", action="store_true",
        help="promote it although its gate has not passed, or it has no report; the history "
        "says so",
    )  # fmt: skip
    _add_writing(promote)
    promote.set_defaults(handler=_promote)
    rollback = verbs.add_parser("rollback", help="move an alias back to where it was before")
    rollback.add_argument("name", metavar="NAME", help="name in the store")
    rollback.add_argument("alias", metavar="ALIAS", help="e.g. production")
    _add_writing(rollback)
    rollback.set_defaults(handler=_rollback)
    listed = verbs.add_parser("versions", help="every version of a model, with its aliases")
    listed.add_argument("name", metavar="NAME", help="name in the store")
    _add_store(listed)
    add_output(listed)
    listed.set_defaults(handler=_list)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", metavar="URI",
        help=f"folder or s3:// of the model store (default: {versions.STORE_VARIABLE}, else the "
        "folder models)",
    )  # fmt: skip


def _add_writing(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument("--note", default="", help="words to keep with it")
    parser.add_argument(
        "--single-writer", action="store_true",
        help="nobody else writes to this store now: needed where an object store ignores If-Match",
    )  # fmt: skip
    add_output(parser)


def _register(arguments: argparse.Namespace) -> int:
    version = versions.register(
        arguments.name, arguments.checkpoint, evaluation=arguments.evaluation,
        note=arguments.note, store=arguments.store, is_single_writer=arguments.single_writer,
    )  # fmt: skip
    if arguments.form == "json":
        print_json(version.to_json())
    else:
        print_text(f"{version.reference} is {version.checkpoint} ({version.digest[:19]})")
        print_text(f"gate: {_tell_gate(version)}")
    return EXIT_OK


def _promote(arguments: argparse.Namespace) -> int:
    alias = versions.promote(
        arguments.version, arguments.alias, ignores_gate=arguments.ignore_gate,
        note=arguments.note, store=arguments.store, is_single_writer=arguments.single_writer,
    )  # fmt: skip
    return _show_alias(alias, arguments.form)


def _rollback(arguments: argparse.Namespace) -> int:
    alias = versions.rollback(
        arguments.name, arguments.alias, note=arguments.note, store=arguments.store,
        is_single_writer=arguments.single_writer,
    )  # fmt: skip
    return _show_alias(alias, arguments.form)


def _show_alias(alias: Alias, form: str) -> int:
    if form == "json":
        print_json({**alias.to_json(), "version": alias.version})
        return EXIT_OK
    before = alias.stack[-2:-1]
    was = f"; rollback goes to {alias.name}@{before[0]}" if before else ""
    print_text(f"{alias.name}@{alias.alias} is {alias.name}@{alias.version}{was}")
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    found = versions.list_versions(arguments.name, arguments.store)
    aliases = versions.list_aliases(arguments.name, arguments.store)
    if arguments.form == "json":
        print_json(
            {
                "versions": [version.to_json() for version in found],
                "aliases": [{**alias.to_json(), "version": alias.version} for alias in aliases],
            }
        )
        return EXIT_OK
    rows = [
        (
            str(version.number),
            _tell_gate(version).partition(":")[0],
            version.created_at,
            version.digest[:19],
            ", ".join(alias.alias for alias in aliases if alias.version == version.number),
        )
        for version in found
    ]
    print_rows(
        f"{arguments.name} in {versions.find_store(arguments.store)}",
        ("version", "gate", "registered", "digest", "aliases"),
        rows,
    )
    for version in found:  # long, and to be copied: no cells
        gate = f"gate: {_tell_gate(version)}"
        words = [version.checkpoint, *_tell_scores(version), gate, version.note]
        lines = "".join(f"\n  {line}" for line in words if line)
        print_text(f"\n{version.reference}{lines}")
    return EXIT_OK


def _tell_scores(version: ModelVersion) -> list[str]:
    return [
        f"{score.task} by {score.runner} {score.value:.3f} "
        f"[{score.interval[0]:.3f}, {score.interval[1]:.3f}]"
        for score in version.scores
    ]


def _tell_gate(version: ModelVersion) -> str:
    if version.gate is None:
        return "no report"
    return "passed" if version.gate.has_passed else f"not passed: {version.gate.reason}"
