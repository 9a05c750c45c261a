"""Under torchrun on two ranks: every ZeRO stage trains, saves through our store, and continues.

Called by `tests/integration/test_training.py`; writes losses.json into the folder given.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyfsb.config import Family, OptimizerSpec, ParallelismSpec
from pyfsb.models.heads import LanguageModelLoss
from pyfsb.storage.workspace import Workspace
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup, join_group, leave_group
from tests.helpers.models import MODELS, PIECES, make_model

NUM_STEPS, SAVED_AT = 10, 5


def batch(step: int, group: ProcessGroup) -> tuple[dict[str, torch.Tensor], int]:
    """Return this rank's part of a step's batch; the ranks' target counts differ."""
    rng = np.random.default_rng([step, group.rank])
    ids = torch.from_numpy(rng.integers(5, len(PIECES), (4, 12)))
    positions = torch.arange(2 + 3 * group.rank + step % 2) * 3
    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "target_positions": positions,
        "target_ids": ids.reshape(-1)[positions],
    }  # fmt: skip
    return inputs, positions.numel()


def run(engine: Engine, steps: range, group: ProcessGroup) -> tuple[list[float], list[float]]:
    """Train some steps; returns losses and gradient norms."""
    losses, norms = [], []
    for step in steps:
        inputs, count = batch(step, group)
        total = group.sum([count])[0]
        torch.manual_seed(step * 10 + group.rank)
        loss = engine(**inputs)
        engine.backward(loss * (group.size / total))
        norms.append(engine.step(1e-2))
        losses.append(group.sum([float(loss)])[0] / total)
    return losses, norms


def make_engine(stage: int, weights: Any = None) -> Engine:
    """Return an engine of a tiny model without dropout, with given or first weights."""
    model = make_model(MODELS[0], Family.FILL_MASK).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = LanguageModelLoss(model)
    if weights is not None:
        loss.load_state_dict(dict(weights), strict=False)
    optimizer = OptimizerSpec(max_gradient_norm=0.5)
    return Engine(loss, optimizer, ParallelismSpec.model_validate({"zero_stage": stage}))


def store_of(folder: Path, stage: int) -> CheckpointStore:
    """Return the store of one stage's states."""
    return CheckpointStore(Workspace(str(folder / f"zero{stage}")), fingerprint={}, keep_last=1)


def go_on(folder: Path, saved: int, stage: int, group: ProcessGroup) -> list[float]:
    """Continue the saved state of one stage on another; returns the losses."""
    restored = store_of(folder, saved).load_latest()
    assert restored is not None
    engine = make_engine(stage, restored.weights)
    engine.set_state(restored.weights, restored.moments, step=restored.state.step)
    return run(engine, range(SAVED_AT, NUM_STEPS), group)[0]


def main() -> None:
    folder = Path(sys.argv[1])
    group = join_group(ParallelismSpec(threads_per_process=1))
    found: dict[str, Any] = {}
    for stage in range(4):
        engine = make_engine(stage)
        first, first_norms = run(engine, range(SAVED_AT), group)
        store_of(folder, stage).save(engine, TrainState(step=SAVED_AT), group)
        rest, rest_norms = run(engine, range(SAVED_AT, NUM_STEPS), group)
        found[str(stage)] = {
            "whole": first + rest,
            "norms": first_norms + rest_norms,
            "continued": go_on(folder, stage, stage, group),
        }
    # An engine of stage 3 replaces torch's linear layer for the whole process, so states are moved
    # between stages after every bit-wise comparison.
    for stage in range(4):
        found[str(stage)]["moved"] = go_on(folder, 1, stage, group)
    if group.is_first:
        (folder / "losses.json").write_text(json.dumps(found))
        shutil.rmtree(folder / "zero0")
    leave_group()


if __name__ == "__main__":
    main()
