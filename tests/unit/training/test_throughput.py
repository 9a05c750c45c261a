# SPDX-License-Identifier: Apache-2.0
"""The throughput model: its parts move as they must, and it keeps its accuracy on published runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pyfsb.training.pools import find_pool
from pyfsb.training.throughput import (
    TERMS,
    Work,
    collective_seconds,
    step_seconds,
    term_seconds,
)
from pyfsb.training.throughput_fit import COEFFICIENTS
from tests.bench.planner import fit, leave_out, nemo_rows, terms_of
from tests.bench.published import read_published_mfu, read_rows

WORK = Work(
    linear_flops=1e15, attention_flops=1e14, head_size=128, vector_elements=1e9, logit_elements=1e9,
    num_layers=24, device_bytes=1e9, parameter_bytes=1e9,
)  # fmt: skip
A100 = find_pool("a100-80")


def test_the_published_figures_agree_with_each_other() -> None:
    pairs = list(read_published_mfu())
    assert len(pairs) == 219
    assert len(read_rows()) == 209
    for row, mfu in pairs:
        assert row.published_mfu == pytest.approx(mfu, rel=0.002), row.title


def test_each_type_of_device_left_out_is_predicted() -> None:
    rows = read_rows()
    terms, seconds = terms_of(rows), np.array([row.seconds for row in rows])
    errors = leave_out(rows, terms, seconds)
    for name, values in errors.items():
        assert np.abs(values).mean() <= 0.05, name
    every = np.abs(np.concatenate(list(errors.values())))
    assert every.mean() <= 0.05
    assert np.quantile(every, 0.9) <= 0.10


def test_the_kept_coefficients_are_those_of_the_fit() -> None:
    rows = read_rows()
    found = fit(terms_of(rows), np.array([row.seconds for row in rows]))
    assert pytest.approx(found, rel=1e-3) == COEFFICIENTS
    assert len(TERMS) == len(COEFFICIENTS)


def test_another_frameworks_encoder_is_near() -> None:
    """NeMo's BERT of 2022 stores its attention scores and recomputes them; ours would be faster."""
    for _, published, predicted in nemo_rows():
        assert 1.0 < predicted / published < 1.25


@pytest.mark.parametrize(
    "field",
    ["linear_flops", "attention_flops", "vector_elements", "logit_elements", "device_bytes"],
)
def test_more_work_takes_longer(field: str) -> None:
    more = replace(WORK, **{field: 2 * getattr(WORK, field)})
    assert step_seconds(more, A100, "bf16", 16) > step_seconds(WORK, A100, "bf16", 16)


def test_small_heads_and_many_nodes_cost_extra() -> None:
    small = replace(WORK, head_size=64)
    assert step_seconds(small, A100, "bf16", 8) > step_seconds(WORK, A100, "bf16", 8)
    assert step_seconds(WORK, A100, "bf16", 64) > step_seconds(WORK, A100, "bf16", 8)
    assert term_seconds(WORK, A100, "bf16", 8)[TERMS.index("hops")] == 0


def test_a_collective_runs_at_its_slowest_link() -> None:
    assert collective_seconds(1e9, A100, 1) == 0
    assert collective_seconds(1e9, A100, 8) == pytest.approx(7 / 8 / 300)
    assert collective_seconds(1e9, A100, 16) == pytest.approx(1 / 200)


def test_tiny_micro_batches_wait_for_the_weights() -> None:
    tiny = replace(WORK, linear_flops=1.0)
    assert term_seconds(tiny, A100, "bf16", 1)[0] == pytest.approx(3e9 / 2.039e12)
