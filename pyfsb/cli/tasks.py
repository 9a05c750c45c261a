# SPDX-License-Identifier: Apache-2.0
"""`fsb tasks list`: the evaluation tasks and suites."""

from __future__ import annotations

import argparse

from pyfsb.cli.arguments import Commands, add_output, print_json, print_table
from pyfsb.errors import EXIT_OK
from pyfsb.evaluation.suites import SUITES
from pyfsb.evaluation.tasks import all_tasks


def add_commands(commands: Commands) -> None:
    """Add the noun and its verb."""
    noun = commands.add_parser("tasks", help="the evaluation tasks")
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    parser = verbs.add_parser("list", help="every registered task and suite")
    add_output(parser)
    parser.set_defaults(handler=_list)


def _list(arguments: argparse.Namespace) -> int:
    tasks = all_tasks().values()
    if arguments.form == "json":
        print_json(
            {
                "tasks": [
                    {
                        "spec": task.spec.to_json(), "title": task.title, "version": task.version,
                        "train": task.train, "test": task.test, "source": task.source,
                        "licence": task.licence,
                    }
                    for task in tasks
                ],
                "suites": {name: list(members) for name, members in SUITES.items()},
            }
        )  # fmt: skip
        return EXIT_OK
    rows = [
        (
            task.name, task.title, task.spec.family.value, str(len(task.spec.labels)), task.train,
            task.test, task.submission.file_name if task.submission else "–",
        )
        for task in tasks
    ]  # fmt: skip
    rows += [
        (name, "suite", "", "", ", ".join(members), "", "") for name, members in SUITES.items()
    ]
    header = ("task", "title", "family", "labels", "train", "scored", "submission")
    print_table(f"{len(tasks)} tasks", header, rows)
    return EXIT_OK
