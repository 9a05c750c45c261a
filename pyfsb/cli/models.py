# SPDX-License-Identifier: Apache-2.0
"""`fsb models`: what the registry knows, weights of the hubs, versions in the model store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final, get_args

from pyfsb.cli import models_check, models_export, models_import, models_recommend, versions
from pyfsb.cli.arguments import Commands, add_output, print_json, print_table, print_text
from pyfsb.config import Family
from pyfsb.errors import EXIT_OK, ConfigError, UnknownNameError
from pyfsb.registry import (
    CatalogueRow,
    ModelEntry,
    all_catalogue_rows,
    all_entries,
    find_catalogue,
    find_entry,
    find_model,
    search_entries,
)
from pyfsb.registry.entry import Architecture
from pyfsb.registry.taxonomy import Series, Task
from pyfsb.schema import to_yaml


def _both_languages(kind: type[Series] | type[Task]) -> list[str]:
    return [name for member in kind for name in (member.value, member.chinese)]


_FILTERS: Final[dict[str, tuple[Sequence[str], str]]] = {
    "series": (_both_languages(Series), "series, such as Erlangshen or 二郎神"),
    "task": (_both_languages(Task), "task of the taxonomy, such as NLU or 自然语言理解"),
    "family": ([family.value for family in Family], "family: what the model is asked for"),
    "architecture": (get_args(Architecture), "architecture: the model_type of its config"),
}
"""Filters of `list` with their values and help."""


def add_commands(commands: Commands) -> None:
    """Add the noun and its verbs."""
    noun = commands.add_parser(
        "models", help="the models of the family, and versions of trained ones"
    )
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    _add_list(verbs)
    show = verbs.add_parser("show", help="everything known about one")
    show.add_argument("name", metavar="NAME", help="name, alias, legacy name or hub id")
    show.add_argument(
        "--catalogue", action="store_true", help="look in the catalogue first (default: last)"
    )
    add_output(show)
    show.set_defaults(handler=_show)
    search = verbs.add_parser("search", help="models that words are found in")
    search.add_argument(
        "text", metavar="TEXT", nargs="+",
        help="words in either language; all of them must stand in names, taxonomy or facts",
    )  # fmt: skip
    add_output(search)
    search.set_defaults(handler=_search)
    models_recommend.add_verb(verbs)
    models_check.add_verb(verbs)
    fetch = verbs.add_parser("fetch", help="bring a hub's weights here, for runs without network")
    fetch.add_argument(
        "uri",
        metavar="MODEL",
        help="hf://ORG/NAME[@REVISION], modelscope://ORG/NAME[@REVISION] or a registered name",
    )
    add_output(fetch)
    fetch.set_defaults(handler=_fetch)
    models_import.add_verbs(verbs)
    models_export.add_verbs(verbs)
    versions.add_verbs(verbs)


def _add_list(verbs: Commands) -> None:
    parser = verbs.add_parser("list", help="every registered model, or some of them")
    for name, (_, text) in _FILTERS.items():
        parser.add_argument(
            f"--{name}", metavar=name.upper(), help=f"only of this {text} (default: all)"
        )
    parser.add_argument(
        "--catalogue", action="store_true",
        help="the other Chinese models in place of the family's (default: off)",
    )  # fmt: skip
    add_output(parser)
    parser.set_defaults(handler=_list)


def _check_filters(arguments: argparse.Namespace) -> None:
    """Give each filter its value as it is known.

    Raises:
        UnknownNameError: Carries the nearest values.
    """
    for name, (known, _) in _FILTERS.items():
        asked = getattr(arguments, name)
        if asked is None:
            continue
        found = [value for value in known if value.casefold() == asked.casefold()]
        if not found:
            raise UnknownNameError(f"{name} (known: {', '.join(known)})", asked, known)
        setattr(arguments, name, found[0])


def _list(arguments: argparse.Namespace) -> int:
    _check_filters(arguments)
    if arguments.catalogue:
        return _list_catalogue(arguments)
    entries = [entry for entry in all_entries() if _is_wanted(entry, arguments)]
    return _print_entries(entries, arguments.form)


def _is_wanted(entry: ModelEntry, arguments: argparse.Namespace) -> bool:
    wanted = (
        (arguments.series, (entry.series.value, entry.series.chinese)),
        (arguments.task, (entry.task.value, entry.task.chinese)),
        (arguments.family, tuple(family.value for family in entry.families)),
        (arguments.architecture, (entry.architecture,)),
    )
    return all(asked is None or asked in known for asked, known in wanted)


def _print_entries(entries: Sequence[ModelEntry], form: str) -> int:
    if form == "json":
        print_json([entry.to_json() for entry in entries])
        return EXIT_OK
    rows = [
        (
            entry.name,
            f"{entry.series.chinese} {entry.task.value}",
            entry.architecture,
            f"{entry.num_parameters / 1e6:,.0f} M",
            ", ".join(family.value for family in entry.families),
            entry.objective.value,
            ", ".join((*entry.aliases, *entry.legacy_names)),
        )
        for entry in entries
    ]
    print_table(
        f"{len(rows)} models",
        (
            "name", "series", "architecture", "parameters", "family", "objective", "also called",
        ),
        rows,
    )  # fmt: skip
    return EXIT_OK


def _list_catalogue(arguments: argparse.Namespace) -> int:
    if arguments.series:
        raise ConfigError("--series is of the family's own models; leave it or --catalogue out")
    tasks = {"NLU": "NLU", "NLG": "NLG", "MM": "Multi-Modal", "Domain": "Table"}
    found = [
        row
        for row in all_catalogue_rows()
        if (arguments.family is None or arguments.family in row.families)
        and (arguments.architecture is None or arguments.architecture == row.architecture)
        and (arguments.task is None or tasks.get(_task_value(arguments.task), "-") in row.group)
    ]
    if arguments.form == "json":
        print_json([row.to_json() for row in found])
        return EXIT_OK
    print_table(
        f"{len(found)} models of {len({row.heading for row in found})} headings",
        ("name", "heading", "class", "families", "hub", "why there is no class"),
        [_describe(row) for row in found],
    )
    return EXIT_OK


def _task_value(name: str) -> str:
    return next(str(task.value) for task in Task if name in (task.value, task.chinese))


def _describe(row: CatalogueRow) -> tuple[str, str, str, str, str, str]:
    return (
        row.name,
        row.heading,
        row.architecture or "none",
        ", ".join(family.value for family in row.families),
        ", ".join(row.hub_ids),
        row.why_not,
    )


def _show(arguments: argparse.Namespace) -> int:
    if arguments.catalogue:
        shown = find_catalogue(arguments.name).to_json()
    else:
        shown = _show_anything(arguments.name)
    if arguments.form == "json":
        print_json(shown)
    else:
        print_text(to_yaml(shown))
    return EXIT_OK


def _show_anything(name: str) -> dict[str, object]:
    """Return an entry, else a row of the catalogue, whether a class loads it or not."""
    try:
        return find_entry(name).to_json()
    except UnknownNameError:
        try:
            return find_catalogue(name).to_json()
        except UnknownNameError:
            return find_model(name).to_json()  # raises with the names of both


def _search(arguments: argparse.Namespace) -> int:
    text = " ".join(arguments.text)
    if not text.strip():
        raise ConfigError("search for '': expected words; `fsb models list` shows all models")
    found = search_entries(text)
    rows = [
        row
        for row in all_catalogue_rows()
        if all(
            word.casefold() in f"{row.name} {row.heading} {row.domain} {row.facts}".casefold()
            for word in arguments.text
        )
    ]
    if arguments.form == "json":
        print_json(
            {
                "models": [entry.to_json() for entry in found],
                "catalogue": [row.to_json() for row in rows],
            }
        )
        return EXIT_OK
    if not found and not rows:
        raise UnknownNameError(
            "words in the registry", text, [name for entry in all_entries() for name in
            (entry.name, entry.architecture)],
        )  # fmt: skip
    if found:
        _print_entries(found, "table")
    if rows:
        print_table(
            f"{len(rows)} models of the catalogue",
            ("name", "heading", "class", "families", "hub", "why there is no class"),
            [_describe(row) for row in rows],
        )
    return EXIT_OK


def _fetch(arguments: argparse.Namespace) -> int:
    from pyfsb.models.hub import HubUri, bring, is_hub_uri, parse_hub_uri

    if is_hub_uri(arguments.uri):
        uri = parse_hub_uri(arguments.uri)
    else:
        entry = find_model(arguments.uri)
        if not entry.hub_id:
            raise ConfigError(
                f"{entry.name}: no repository is known; fetch it by hf://ORG/NAME, or put its "
                "folder into model.checkpoint"
            )
        uri = HubUri(hub="hf", name=entry.hub_id, revision="main")
    snapshot = bring(uri)
    if arguments.form == "json":
        print_json({"uri": snapshot.uri, "folder": str(snapshot.folder)})
    else:
        print_text(f"{snapshot.uri}\n{snapshot.folder}")
    return EXIT_OK
