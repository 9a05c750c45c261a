# SPDX-License-Identifier: Apache-2.0
"""Find a model entry by any of its names.

Entries are gathered from every module of this package that defines `ENTRIES`, once. Called by the
command line, training and inference; never imports torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

import pyfsb.registry
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.registry.entry import ModelEntry


@cache
def all_entries() -> tuple[ModelEntry, ...]:
    """Return every entry, sorted by name.

    Raises:
        ConfigError: Two entries claim one name.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(pyfsb.registry.__path__))
    modules = [importlib.import_module(f"pyfsb.registry.{name}") for name in names]
    found: list[ModelEntry] = []
    for module in modules:
        found += getattr(module, "ENTRIES", ())
    _names_of(found)
    return tuple(sorted(found, key=lambda entry: entry.name))


def find_entry(name: str) -> ModelEntry:
    """Return the entry with this name, alias or hub id, compared without case.

    Raises:
        UnknownNameError: Carries the nearest registered names.
    """
    entries = all_entries()
    found = _names_of(entries).get(name.casefold())
    if found is None:
        shown = [known for entry in entries for known in (entry.name, *entry.aliases)]
        raise UnknownNameError("model", name, shown)
    return found


def _names_of(entries: Iterable[ModelEntry]) -> dict[str, ModelEntry]:
    names: dict[str, ModelEntry] = {}
    for entry in entries:
        for name in {entry.name, entry.hub_id, *entry.aliases}:
            other = names.setdefault(name.casefold(), entry)
            if other is not entry:
                raise ConfigError(f"{name!r} names both {other.name} and {entry.name}")
    return names
