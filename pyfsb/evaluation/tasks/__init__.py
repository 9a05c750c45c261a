# SPDX-License-Identifier: Apache-2.0
"""One file per evaluation task, found by walking this folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pyfsb.errors import UnknownNameError
from pyfsb.evaluation.protocol import Task


@cache
def all_tasks() -> dict[str, Task]:
    """Return every task by name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [importlib.import_module(f"{__name__}.{name}").TASK for name in names]
    return {task.name: task for task in found}


def find_task(name: str) -> Task:
    """Return the task with this name.

    Raises:
        UnknownNameError: Carries the nearest names.
    """
    tasks = all_tasks()
    if name not in tasks:
        raise UnknownNameError("task", name, tasks)
    return tasks[name]
