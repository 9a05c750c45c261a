from __future__ import annotations

from collections import Counter

import pytest

from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.registry import (
    ModelEntry,
    all_catalogue_rows,
    all_entries,
    all_headings,
    catalogue,
    find_catalogue,
    find_model,
)
from pyfsb.registry.catalogue import CatalogueRow, added_rows, build_entry
from pyfsb.registry.catalogue_facts import HEADINGS, ROWS
from pyfsb.registry.catalogue_rows import HUB_PAGES, IN_PUBLIC_CODE, MODELS, OWN_ENTRIES
from pyfsb.registry.catalogue_sizes import SIZES
from pyfsb.registry.taxonomy import Series

ROWS_AND_ADDED = (*all_catalogue_rows(), *added_rows())


def test_the_list_has_49_headings_and_150_rows() -> None:
    assert len(all_catalogue_rows()) == 150
    assert len(all_headings()) == 49
    assert Counter(row.group for row in all_catalogue_rows()) == {
        "NLU系列": 92, "NLG系列": 29, "NLU-NLG系列": 17, "Multi-Modal": 10, "Table": 2,
    }  # fmt: skip
    assert Counter(row.heading for row in all_catalogue_rows()).most_common(2) == [
        ("RoBERTa", 19), ("BERT", 11),
    ]  # fmt: skip


def test_every_heading_has_facts_and_every_fact_a_heading() -> None:
    assert {facts.heading for facts in HEADINGS} == {*all_headings(), "LERT"}
    models = {(row.heading, row.model) for row in ROWS_AND_ADDED}
    assert {(row.heading, model) for row in ROWS for model in row.models} <= models
    assert all(row.facts for row in ROWS_AND_ADDED)


def test_every_size_and_every_key_is_used() -> None:
    keys = {
        key
        for row in ROWS_AND_ADDED
        for key in (
            f"{row.heading}/{row.model}/{row.version}",
            f"{row.heading}/{row.model}/{row.version}/{row.author}",
        )
    }
    assert set(MODELS) <= keys
    assert set(OWN_ENTRIES) <= keys
    assert {size for size, _ in MODELS.values()} == set(SIZES)


def test_repositories_beyond_the_list_were_found_elsewhere_or_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repositories = {repository for _, repository in MODELS.values()}
    assert repositories >= HUB_PAGES | IN_PUBLIC_CODE
    assert HUB_PAGES.isdisjoint(IN_PUBLIC_CODE)
    assert not any("memory" in issue for row in ROWS_AND_ADDED for issue in row.known_issues)
    monkeypatch.setattr(catalogue, "HUB_PAGES", HUB_PAGES - {"hfl/rbt3"})
    raw = {
        "group": "NLU系列", "heading": "RoBERTa", "model": "RBT3", "version": "3层base",
        "frameworks": "-", "author": "HFL", "source_repository": "-", "hub_ids": "-",
        "domain": "通用",
    }  # fmt: skip
    assert "found nowhere else" in catalogue._build_row(raw, "RBT3").known_issues[-1]


def test_names_are_unique_and_found() -> None:
    names = [row.name for row in ROWS_AND_ADDED]
    assert len(set(names)) == len(names)
    for row in ROWS_AND_ADDED:
        assert find_catalogue(row.name) is row
        assert find_catalogue(row.name.upper()) is row
    assert find_catalogue("hfl/chinese-macbert-base").name == "MacBERT-base"


@pytest.mark.parametrize("row", ROWS_AND_ADDED, ids=lambda row: f"{row.heading} {row.name}")
def test_a_row_is_supported_or_says_why_not(row: CatalogueRow) -> None:
    assert row.is_supported == bool(row.families) == (not row.why_not)
    if not row.is_supported:
        with pytest.raises(ConfigError, match="has no class in transformers: "):
            find_model(row.name)
        return
    entry = find_model(row.name)
    assert entry.families == row.families
    assert entry.architecture == row.architecture
    if row.entry_name:
        assert entry in all_entries()
    else:
        assert entry.series is Series.OTHER
        assert entry.hub_id == (row.hub_ids[0] if row.hub_ids else "")
        assert ModelEntry.model_validate(entry.to_json()) == entry


def test_the_models_that_the_issue_names() -> None:
    supported = {
        "BERT-wwm", "MacBERT-base", "ernie-1.0-base", "PERT-base", "LERT-base", "CPM",
        "Mengzi-BERT", "Chinese-CLIP", "T5 PEGASUS base", "roformer base(L12)",
    }  # fmt: skip
    assert all(find_catalogue(name).is_supported for name in supported)
    for name in ("NEZHA-base", "CPT-base", "GLM-130B", "roformerV2 base(L12)"):
        assert not find_catalogue(name).is_supported


def test_the_family_comes_first_and_both_are_suggested() -> None:
    assert find_model("Erlangshen-1.3B").name == "Erlangshen-MegatronBert-1.3B"
    assert find_model("闻仲-3.5B").name == "Wenzhong-GPT2-3.5B"
    with pytest.raises(UnknownNameError) as caught:
        find_model("MacBERT-bse")
    assert caught.value.nearest[0] == "MacBERT-base"
    with pytest.raises(UnknownNameError) as caught:
        find_model("Wenzhong-GPT2-110")
    assert caught.value.nearest[0] == "Wenzhong-GPT2-110M"


def test_a_name_of_several_rows_lists_them() -> None:
    with pytest.raises(UnknownNameError, match=r"several: roformer base\(L12\), roformer small"):
        find_model("roformer")
    with pytest.raises(UnknownNameError, match="several"):
        find_catalogue("CPM-2")


def test_weights_of_another_framework_are_told() -> None:
    entry = build_entry(find_catalogue("SimBERT Base"))
    assert any("TensorFlow only" in issue for issue in entry.known_issues)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("二郎神", "fsb models list --series Erlangshen"),
        ("taiyi", "fsb models list --series Taiyi"),
        ("BERT", "a heading of the catalogue; its models: BERT-Base, BERT-wwm"),
    ],
)
def test_a_series_or_a_heading_is_no_model_but_says_which_there_are(name: str, text: str) -> None:
    with pytest.raises(UnknownNameError, match=text):
        find_model(name)
