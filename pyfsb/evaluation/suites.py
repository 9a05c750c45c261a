# SPDX-License-Identifier: Apache-2.0
"""Named lists of tasks, and what a spec's list of names means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pyfsb.errors import UnknownNameError
from pyfsb.evaluation.protocol import Task
from pyfsb.evaluation.tasks import all_tasks, find_task

SUITES: Final[dict[str, tuple[str, ...]]] = {
    "classification": ("tnews", "eprstmt", "ocnli", "afqmc", "chnsenticorp"),
}


def resolve_tasks(names: Iterable[str]) -> list[Task]:
    """Return the tasks of names and suites, each once, in the order given.

    Raises:
        UnknownNameError: A name is neither; carries the nearest.
    """
    found: dict[str, Task] = {}
    for name in names:
        if name not in SUITES and name not in all_tasks():
            raise UnknownNameError("task or suite", name, [*all_tasks(), *SUITES])
        for task in SUITES.get(name, (name,)):
            found[task] = find_task(task)
    return list(found.values())
