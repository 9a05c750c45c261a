# SPDX-License-Identifier: Apache-2.0
"""`fsb models`: what the registry knows, weights of the hubs, versions in the model store."""

from __future__ import annotations

import argparse

from pyfsb.cli import versions
from pyfsb.cli.arguments import Commands, add_output, print_json, print_table, print_text
from pyfsb.errors import EXIT_OK
from pyfsb.registry import all_entries, find_entry
from pyfsb.schema import to_yaml


def add_commands(commands: Commands) -> None:
    """Add the noun and its verbs."""
    noun = commands.add_parser(
        "models", help="the models of the family, and versions of trained ones"
    )
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    parser = verbs.add_parser("list", help="every registered model")
    add_output(parser)
    parser.set_defaults(handler=_list)
    show = verbs.add_parser("show", help="everything known about one")
    show.add_argument("name", metavar="NAME", help="name, alias or hub id")
    add_output(show)
    show.set_defaults(handler=_show)
    fetch = verbs.add_parser("fetch", help="bring a hub's weights here, for runs without network")
    fetch.add_argument(
        "uri",
        metavar="MODEL",
        help="hf://ORG/NAME[@REVISION], modelscope://ORG/NAME[@REVISION] or a registered name",
    )
    add_output(fetch)
    fetch.set_defaults(handler=_fetch)
    versions.add_verbs(verbs)


def _list(arguments: argparse.Namespace) -> int:
    entries = all_entries()
    if arguments.form == "json":
        print_json([entry.to_json() for entry in entries])
        return EXIT_OK
    rows = [
        (
            entry.name,
            f"{entry.series.chinese} {entry.task.value}",
            entry.architecture,
            f"{entry.num_parameters / 1e6:,.0f} M",
            entry.objective,
            ", ".join(entry.aliases),
        )
        for entry in entries
    ]
    print_table(
        f"{len(rows)} models",
        ("name", "series", "architecture", "parameters", "objective", "also called"),
        rows,
    )
    return EXIT_OK


def _show(arguments: argparse.Namespace) -> int:
    entry = find_entry(arguments.name)
    if arguments.form == "json":
        print_json(entry.to_json())
    else:
        print_text(to_yaml(entry.to_json()))
    return EXIT_OK


def _fetch(arguments: argparse.Namespace) -> int:
    from pyfsb.models.hub import HubUri, bring, is_hub_uri, parse_hub_uri

    if is_hub_uri(arguments.uri):
        uri = parse_hub_uri(arguments.uri)
    else:
        uri = HubUri(hub="hf", name=find_entry(arguments.uri).hub_id, revision="main")
    snapshot = bring(uri)
    if arguments.form == "json":
        print_json({"uri": snapshot.uri, "folder": str(snapshot.folder)})
    else:
        print_text(f"{snapshot.uri}\n{snapshot.folder}")
    return EXIT_OK
