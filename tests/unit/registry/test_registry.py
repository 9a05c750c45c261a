from __future__ import annotations

import pytest

from pyfsb.errors import UnknownNameError
from pyfsb.registry import all_entries, find_entry
from pyfsb.registry.taxonomy import Series

NEEDED = (
    "Erlangshen-MegatronBert-1.3B",
    "Erlangshen-DeBERTa-v2-97M-Chinese",
    "Wenzhong-GPT2-110M",
)


def test_entries_are_unique_and_sorted() -> None:
    names = [entry.name for entry in all_entries()]
    assert names == sorted(set(names))
    assert set(NEEDED) <= set(names)


@pytest.mark.parametrize("name", NEEDED)
def test_an_entry_is_found_by_any_name(name: str) -> None:
    entry = find_entry(name)
    for other in (entry.hub_id, entry.name.upper(), *entry.aliases):
        assert find_entry(other) is entry


def test_chinese_names_work() -> None:
    assert find_entry("二郎神-1.3B").name == "Erlangshen-MegatronBert-1.3B"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_entry("Erlangshen-MegatronBrt-1.3B")
    assert caught.value.nearest[0] == "Erlangshen-MegatronBert-1.3B"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_facts_fit_each_other(entry: object) -> None:
    from pyfsb.registry import ModelEntry

    assert isinstance(entry, ModelEntry)
    assert entry.name.startswith(entry.series.value)
    assert entry.source
    positions = entry.config.get("max_position_embeddings", entry.config.get("n_positions"))
    assert positions == entry.max_tokens
    assert all(claim.source for claim in entry.claims)
    assert ModelEntry.model_validate(entry.to_json()) == entry


def test_the_taxonomy_speaks_both_languages() -> None:
    assert Series.ERLANGSHEN.value == "Erlangshen"
    assert Series.ERLANGSHEN.chinese == "二郎神"
