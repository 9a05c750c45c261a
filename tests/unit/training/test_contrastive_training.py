# SPDX-License-Identifier: Apache-2.0
"""Pairs over several processes under every ZeRO stage: the same weights as one process alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyfsb.config import OptimizerSpec, ParallelismSpec
from pyfsb.models.contrastive_loss import ContrastiveLoss, freeze_vision
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.export import gather_weights, plain_names
from pyfsb.training.protocol import Batch, idle
from pyfsb.training.session import build_engine
from tests.helpers import groups
from tests.helpers.captions import CAPTIONS, collate_pairs, tiny_clip

STEPS = (([0, 1, 2, 3, 4, 5],), ([0, 1, 2, 3], [4, 5]), ([0, 1, 2, 3, 4, 5], []))
"""How the pairs of a step are shared: one process, two, and two of which one has nothing."""


def train(group: ProcessGroup, shares: tuple[list[int], ...], stage: int) -> dict[str, Tensor]:
    """Take three steps; an idle process computes on the step's first pair."""
    model = tiny_clip()
    freeze_vision(model)
    parallelism = ParallelismSpec(zero_stage=stage, num_processes=group.size)
    settings = OptimizerSpec(learning_rate=1e-2, weight_decay=0.1)
    engine = build_engine(ContrastiveLoss(model).train(), settings, parallelism, group)
    own = shares[group.rank]
    batch = Batch(inputs=collate_pairs(own or [0]), num_targets=len(own), num_tokens=1)
    for _ in range(3):
        loss = engine(**(batch if own else idle(batch)).inputs)
        engine.backward(loss * (bool(own) * group.size / len(CAPTIONS)))
        engine.step(1e-2)
    return plain_names(gather_weights(engine, group))


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    groups.load()
    return groups.run_ranks(1, lambda group: train(group, STEPS[0], 0))[0]


@pytest.mark.parametrize(
    ("stage", "shares"), [(0, STEPS[1]), (1, STEPS[1]), (3, STEPS[2])], ids=str
)
def test_two_processes_are_one(
    stage: int, shares: tuple[list[int], ...], expected: dict[str, Tensor]
) -> None:
    found = groups.run_ranks(2, lambda group: train(group, shares, stage))[0]
    first = tiny_clip().state_dict()
    assert set(found) == set(expected) == set(first)
    for name, weight in found.items():
        is_vision = name.startswith(("vision_model.", "visual_projection."))
        assert weight.shape == first[name].shape, name
        assert torch.equal(weight, first[name]) == is_vision, name
        if name.endswith("key.bias"):  # softmax is blind to it: its gradient is rounding
            continue
        torch.testing.assert_close(
            weight, expected[name], rtol=1e-3, atol=1e-4, msg=f"{name}: {weight - expected[name]}"
        )
