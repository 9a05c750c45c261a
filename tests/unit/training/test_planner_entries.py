# SPDX-License-Identifier: Apache-2.0
"""Plans for every entry of the registry, and what its objective predicts."""

from __future__ import annotations

import pytest

from pyfsb.config import RunSpec
from pyfsb.errors import ConfigError
from pyfsb.registry.lookup import all_entries
from pyfsb.training.estimates import Rates, estimate
from pyfsb.training.layouts import lighter
from pyfsb.training.planner import build_workload, make_plan
from pyfsb.training.pools import find_pool


def make_spec(name: str, **sections) -> RunSpec:
    values = {
        "name": "plan", "output": "runs/plan", "model": {"name": name},
        "data": {"corpus": ["*.txt"], "max_tokens": 512}, "batch": {"tokens": 1 << 20}, **sections,
    }  # fmt: skip
    return RunSpec.model_validate(values)


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_every_entry_can_be_planned(entry) -> None:
    spec, pool = make_spec(entry.name), find_pool("a100-80")
    workload = build_workload(spec, corpus_tokens=1e10)
    plan = make_plan(spec, workload, pool, [4])
    assert 0.05 < plan.best.mfu < 0.75
    assert plan.best.memory.activations > 0
    checkpointed = [
        estimate(workload, layout, pool, Rates())
        for layout in lighter(plan.best.layout, workload.max_tokens)
    ]
    assert min(found.memory.device for found in checkpointed) < plan.best.memory.device


def test_images_have_as_many_tokens_as_patches() -> None:
    workload = build_workload(make_spec("Taiyi-vit-87M-D"), corpus_tokens=1e9)
    assert (workload.document_tokens, workload.max_tokens) == (197.0, 197)


def test_windows_make_long_texts_cheaper() -> None:
    data = {"corpus": ["*.txt"], "max_tokens": 4096}
    windowed, full = (
        build_workload(
            make_spec(
                "Erlangshen-Longformer-110M", data=data,
                model={"name": "Erlangshen-Longformer-110M",
                       "config": {"use_sparse_attention": is_sparse}},
            ),
            corpus_tokens=1e9,
        )
        for is_sparse in (True, False)
    )  # fmt: skip
    attention = [w.counter.parts([4096], 1).attention for w in (windowed, full)]
    assert attention[0] / attention[1] == pytest.approx(129 / 4096, rel=0.04)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Zhouwenwang-Unified-110M", 0.15 / 3 + 1 / 3 + 1 / 6),
        ("Randeng-MegatronT5-770M", 0.25),
        ("Randeng-BART-139M", 1.0),
        ("Randeng-Transformer-1.1B-Denoise", 1.0),
        ("Erlangshen-ZEN1-224M-Chinese", 0.15),
    ],
)
def test_targets_follow_from_the_objective(name: str, expected: float) -> None:
    workload = build_workload(make_spec(name), corpus_tokens=1e9)
    assert workload.target_ratio == pytest.approx(expected)


def test_texts_that_shrink_may_be_longer_than_the_positions() -> None:
    data = {"corpus": ["*.txt"], "max_tokens": 570}
    assert build_workload(make_spec("Randeng-MegatronT5-770M", data=data), corpus_tokens=1e9)
    with pytest.raises(ConfigError, match="has 512 positions"):
        build_workload(make_spec("Zhouwenwang-Unified-110M", data=data), corpus_tokens=1e9)


def test_overrides_reach_into_parts() -> None:
    name = "Taiyi-CLIP-Roberta-102M-Chinese"
    sizes = [
        build_workload(
            make_spec(name, model={"name": name, "config": changes}), corpus_tokens=1e9
        ).counter.shape.num_parameters
        for changes in ({}, {"text_config.num_hidden_layers": 11})
    ]
    layer = 4 * 768 * 768 + 2 * 768 * 3072 + 9 * 768 + 3072
    assert sizes[0] - sizes[1] == layer
