"""Every entry and every size of the catalogue, built without memory by the classes themselves."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.building import build_config, build_model, find_class, max_positions
from pyfsb.models.loading import count_parameters
from pyfsb.registry import ModelEntry, all_catalogue_rows, all_entries, find_entry, find_model
from pyfsb.registry.catalogue import FAMILIES, added_rows
from pyfsb.registry.catalogue_sizes import SIZES, CatalogueSize
from pyfsb.registry.sizes import MAX_TOKENS, TINY, tiny_config

TOLERANCE = 0.01
OWN = {"zen1", "zen2", "rope-longformer", "zhouwenwang", "megatron-t5", "transfo-xl-denoise", "ubert",
       "uniex", "taiyi-clip"}  # fmt: skip


def build(entry: ModelEntry, overrides: dict | None = None) -> PreTrainedModel:
    with torch.device("meta"):
        config = build_config(entry, overrides or {}, vocabulary=())
        return build_model(config, entry.family, seed=0, labels=entry.labels)


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_parameters_are_those_of_the_name_or_the_entry_says_why(entry: ModelEntry) -> None:
    model = build(entry)
    count = count_parameters(model)
    assert count == pytest.approx(entry.real_parameters, rel=TOLERANCE)
    if not entry.size_note:
        assert count == pytest.approx(entry.num_parameters, rel=TOLERANCE)
    if entry.tokenizer != "none":
        assert max_positions(model.config) >= entry.max_tokens


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_every_field_of_a_config_is_one_of_its_class(entry: ModelEntry) -> None:
    from transformers import AutoConfig

    empty = AutoConfig.for_model(entry.architecture)
    # Transformers reads some of DeBERTa by name without declaring them, predictors read prompts.
    undeclared = {"conv_kernel_size", "conv_act", "share_att_key", "norm_rel_ebd",
                  "position_buckets", "prompt_template", "prompt_end"}  # fmt: skip
    for name, value in entry.config.items():
        assert hasattr(empty, name) or name in undeclared, name
        if isinstance(value, dict):
            assert all(hasattr(getattr(empty, name), inner) for inner in value)


def test_the_text_tower_is_what_a_clip_is_named_after() -> None:
    for entry in all_entries():
        if entry.family is Family.IMAGE_TEXT:
            tower = build(entry).text_model
            assert count_parameters(tower) == pytest.approx(entry.num_parameters, rel=TOLERANCE)


def test_all_our_architectures_are_in_the_tree() -> None:
    assert sorted(name for name in OWN if find_architecture(name) is None) == []


@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
def test_a_size_of_the_catalogue_has_its_parameters(size: CatalogueSize) -> None:
    from transformers import AutoModelForCausalLM

    entry = find_entry("Erlangshen-Roberta-110M-NLI").model_copy(
        update={"architecture": size.architecture, "config": size.config}
    )
    with torch.device("meta"):
        config = build_config(entry, {}, vocabulary=())
        if size.architecture == "xlnet":
            model = AutoModelForCausalLM.from_config(config)
        else:
            family = FAMILIES[size.architecture][0]
            head = Family.FILL_MASK if family is Family.CLASSIFY else family
            model = build_model(config, head, seed=0)
    assert count_parameters(model) == pytest.approx(size.num_parameters, rel=TOLERANCE)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family_of_the_catalogue_has_a_class(architecture: str) -> None:
    size = next(size for size in SIZES.values() if size.architecture == architecture)
    entry = find_entry("Erlangshen-Roberta-110M-NLI").model_copy(
        update={"architecture": architecture, "config": size.config}
    )
    config = build_config(entry, TINY[architecture], vocabulary=())
    for family in FAMILIES[architecture]:
        with torch.device("meta"):
            build_model(config, family, seed=0, labels=("a", "b"))
    for family in (Family.TAG, Family.GENERATE):
        if family not in FAMILIES[architecture] and architecture == "openai-gpt":
            with pytest.raises((ConfigError, ValueError, KeyError)):
                build_model(config, family, seed=0)
    assert find_class(architecture, FAMILIES[architecture][0])


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_tiny_is_small_and_keeps_its_structure(entry: ModelEntry) -> None:
    overrides = tiny_config(entry)
    assert all(isinstance(value, bool | int | float | str) for value in overrides.values())
    vocabulary = {"text_config.vocab_size": 400} if "text_config" in entry.config else {}
    if not vocabulary and entry.architecture != "vit":
        vocabulary = {"vocab_size": 400}
    model = build(entry, {**overrides, **vocabulary})
    assert 20_000 < count_parameters(model) < 600_000
    positions = max_positions(model.config)
    assert positions == MAX_TOKENS or positions > 10_000
    changed = {name.partition(".")[0] for name in overrides} | {"vocab_size", "text_config"}
    for name, value in entry.config.items():
        if name not in changed:
            kept = getattr(model.config, name)
            assert ("|".join(kept) if isinstance(kept, list) else kept) == value, name


def test_every_architecture_has_a_tiny_size() -> None:
    rows = [row for row in (*all_catalogue_rows(), *added_rows()) if row.is_supported]
    used = {entry.architecture for entry in all_entries()}
    used |= {find_model(row.name).architecture for row in rows}
    assert used | {"uniex"} == set(TINY)
