# SPDX-License-Identifier: Apache-2.0
"""Find a model entry by any of its names.

Entries are gathered from every module of this package that defines `ENTRIES`, once. Called by the
command line, training and inference; never imports torch. `find_model` also takes the catalogue.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

import pyfsb.registry
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.registry.entry import ModelEntry

_SYNONYMS: Final = {
    "摘要": "summary", "情感": "sentiment", "相似": "similarity", "推理": "nli", "问答": "qa",
    "抽取": "extract", "分类": "classify", "生成": "generate", "图文": "image_text",
    "填空": "fill_mask", "选择": "choose", "长文本": "longformer", "去噪": "denois",
    "医疗": "medical", "改写": "rewrite", "对话": "sft", "中文": "zh", "英文": "en",
}  # fmt: skip
"""What some Chinese words of a search stand for in the entries, which are in English."""


@cache
def all_entries() -> tuple[ModelEntry, ...]:
    """Return every entry of the family, sorted by name.

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
    """Return the entry with this name, alias, legacy name or hub id, compared without case.

    Hyphens, underscores and spaces may stand for each other or be left out where only one entry
    can be meant.

    Raises:
        UnknownNameError: Carries the nearest registered names.
    """
    entries = all_entries()
    found = _exact_names().get(name.strip().casefold())
    if found is None:
        alike = _loose_names().get(loosen(name), frozenset())
        found = next((entry for entry in entries if entry.name in alike), None)
        if len(alike) > 1:
            raise UnknownNameError("model (several are meant by)", name, sorted(alike))
    if found is None:
        shown = [known for entry in entries for known in shown_names(entry)]
        raise UnknownNameError("model", name, shown)
    return found


def shown_names(entry: ModelEntry) -> tuple[str, ...]:
    """Return what a user may call an entry, its own name first, without repositories."""
    return (entry.name, *entry.aliases, *entry.legacy_names)


def loosen(name: str) -> str:
    """Return a name without case, hyphens, underscores and spaces."""
    return re.sub(r"[-_\s]+", "", name).casefold()


def search_entries(text: str) -> tuple[ModelEntry, ...]:
    """Return the entries that a text is found in, best first.

    Every word of the text has to stand somewhere: in a name (weighs most), in the taxonomy of
    either language, architecture, objective and tokenizer, or in claims, notes and issues.
    """
    words = [(word, _SYNONYMS.get(word, word)) for word in text.casefold().split()]
    ranked: list[tuple[int, str, ModelEntry]] = []
    for entry in all_entries():
        fields = [(weight, value.casefold()) for weight, value in _searched(entry)]
        weights = [
            max((weight for weight, value in fields if word in value or other in value), default=0)
            for word, other in words
        ]
        if weights and min(weights) > 0:
            ranked.append((-sum(weights), entry.name, entry))
    return tuple(entry for _, _, entry in sorted(ranked, key=lambda item: item[:2]))


def _searched(entry: ModelEntry) -> Iterator[tuple[int, str]]:
    for name in (*shown_names(entry), entry.hub_id, *entry.other_hub_ids):
        yield 4, name
    for kind in (entry.series, entry.demand, entry.task):
        yield 3, kind.value
        yield 3, kind.chinese
    kinds: tuple[str, ...] = (entry.architecture, entry.tokenizer, *entry.labels, *entry.languages)
    for value in (*kinds, entry.objective, *entry.other_objectives, *entry.families):
        yield 3, str(value)
    for claim in entry.claims:
        yield 2, f"{claim.subject} {claim.statement}"
    for score in entry.scores:
        yield 2, f"{score.task} {score.metric}"
    notes = (*entry.known_issues, *entry.unknown, *entry.our_choices)
    for text in (entry.parent, entry.size_note, entry.source, *notes):
        yield 1, text


@cache
def _exact_names() -> dict[str, ModelEntry]:
    return _names_of(all_entries())


@cache
def _loose_names() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, entry in _exact_names().items():
        found.setdefault(loosen(name), set()).add(entry.name)
    return {name: frozenset(names) for name, names in found.items()}


def _names_of(entries: Iterable[ModelEntry]) -> dict[str, ModelEntry]:
    names: dict[str, ModelEntry] = {}
    for entry in entries:
        for name in {*shown_names(entry), entry.hub_id, *entry.other_hub_ids}:
            other = names.setdefault(name.casefold(), entry)
            if other is not entry:
                raise ConfigError(f"{name!r} names both {other.name} and {entry.name}")
    return names
