# SPDX-License-Identifier: Apache-2.0
"""`fsb records show|tree|verify`: what is complete, and what it was made from."""

from __future__ import annotations

import argparse

from pyfsb import records, storage
from pyfsb.cli.arguments import Commands, add_output, print_json, print_text
from pyfsb.cli.summary import describe
from pyfsb.errors import EXIT_OK, DataError
from pyfsb.schema import Json, to_yaml
from pyfsb.storage.workspace import localise


def add_commands(commands: Commands) -> None:
    """Add the noun and its verbs."""
    noun = commands.add_parser("records", help="what is complete, and what it was made from")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    texts = {
        "show": ("print a record", _show),
        "tree": ("print a record and everything it was made from", _tree),
        "verify": ("compare a record's files with their hashes", _verify),
    }
    for name, (text, handler) in texts.items():
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("uri", metavar="URI", help="folder or s3:// prefix with a record.json")
        add_output(verb)
        verb.set_defaults(handler=handler)


def _show(arguments: argparse.Namespace) -> int:
    record = records.read_record(arguments.uri)
    value = record.to_json() | {"digest": record.digest}
    if arguments.form == "json":
        print_json(value)
    else:
        print_text(to_yaml(value))
    return EXIT_OK


def _tree(arguments: argparse.Namespace) -> int:
    if arguments.form == "json":
        print_json(tree(storage.absolute(arguments.uri)))
    else:
        print_text("\n".join(_lines(tree(storage.absolute(arguments.uri)))))
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    record = records.read_record(arguments.uri)
    records.verify_files(record.files, localise(arguments.uri))
    print_text(f"{len(record.files)} files of {record.digest} are unchanged")
    return EXIT_OK


def tree(uri: str) -> Json:
    """Return a record and, below `made_from`, the trees of its parents.

    Raises:
        DataError: The record itself is missing; a missing parent is shown as such.
    """
    record = records.read_record(uri)
    parents = []
    for parent in record.parents:
        place = storage.resolve(parent.uri, uri)
        try:
            branch = tree(place)
        except DataError:
            branch = {"kind": parent.kind, "uri": place, "text": "missing", "made_from": []}
        if branch.get("digest", parent.digest) != parent.digest:
            branch["text"] += "  (changed since)"
        parents.append(branch)
    return {
        "kind": record.kind,
        "uri": uri,
        "digest": record.digest,
        "text": describe(record),
        "made_from": parents,
    }


def _lines(branch: Json, indent: str = "") -> list[str]:
    lines = [
        f"{branch['kind']}  {branch['text']}",
        f"{indent}{'│  ' if branch['made_from'] else '   '}{branch['uri']}  "
        f"{branch.get('digest', '')[:19]}",
    ]
    for number, parent in enumerate(branch["made_from"], start=1):
        is_last = number == len(branch["made_from"])
        inner = _lines(parent, indent + ("   " if is_last else "│  "))
        lines.append(f"{indent}{'└─ ' if is_last else '├─ '}{inner[0]}")
        lines += inner[1:]
    return lines
