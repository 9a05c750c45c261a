"""Small trainings through the real loop, loader, engine and store, on toy samples.

Called by forked ranks (see `groups`) and by tests of one process; every sample can be poisoned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyfsb.config import Family, LoraSpec, OptimizerSpec, ParallelismSpec, SpikeSpec
from pyfsb.models.heads import build_loss
from pyfsb.processes import StopRequest
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import Ints, Position, StepPlanner
from pyfsb.training.best import BestWeights
from pyfsb.training.building import build_first
from pyfsb.training.checkpoint import CheckpointStore
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.fragments import named_weights
from pyfsb.training.loader import Loader
from pyfsb.training.loop import End, TrainingLoop
from pyfsb.training.lora import add_adapters
from pyfsb.training.meters import StepOutcome
from pyfsb.training.order import ShuffledOrder
from pyfsb.training.protocol import Batch
from pyfsb.training.restoring import start_engine
from pyfsb.training.session import build_engine
from pyfsb.training.steering import Company, LoopSettings
from pyfsb.training.validation import Validation
from tests.helpers.models import MODELS, PIECES, make_model


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training; the defaults are those of most tests."""

    folder: Path
    zero: dict[str, Any] = field(default_factory=lambda: {"zero_stage": 0})
    precision: str = "fp32"
    num_steps: int = 10
    stop_at: int | None = None
    """A stop request comes in this step."""
    save_every_steps: int = 100
    dropout: float = 0.0
    poison: Mapping[int, float] = field(default_factory=dict)
    """Factor of the loss of a batch that holds this sample."""
    spikes: SpikeSpec = field(default_factory=lambda: SpikeSpec(max_norm_ratio=None))
    lora: LoraSpec | None = None
    checkpoints_activations: bool = False
    optimizer: OptimizerSpec = field(
        default_factory=lambda: OptimizerSpec(learning_rate=1e-2, max_gradient_norm=0.5)
    )
    num_samples: int = 400
    tokens: int = 96
    model: str = MODELS[0]


@dataclass(kw_only=True)
class Seen:
    """What came of a training."""

    end: End
    outcomes: list[StepOutcome]
    rewinds: list[int]
    weights: dict[str, Tensor]
    engine: Engine

    @property
    def losses(self) -> list[float]:
        return [outcome.loss for outcome in self.outcomes]


class Rows:
    """Random documents, a third of their tokens predicted; poisoned where asked."""

    def __init__(self, num_samples: int, poison: Mapping[int, float]) -> None:
        rng = np.random.default_rng(5)
        self.lengths: Ints = rng.integers(5, 13, num_samples)
        self._poison = poison

    def collate(self, sample_ids: Ints, passes: Ints) -> Batch:
        documents = [
            np.random.default_rng([7, int(sample)]).integers(5, len(PIECES), self.lengths[sample])
            for sample in sample_ids
        ]
        ids = torch.from_numpy(np.concatenate(documents))
        starts = np.cumsum(self.lengths[sample_ids]) - self.lengths[sample_ids]
        places = [
            start + np.arange(int(turn) % 3, self.lengths[sample], 3)
            for start, turn, sample in zip(starts, passes, sample_ids, strict=True)
        ]
        positions = torch.from_numpy(np.concatenate(places))
        factor = float(np.prod([self._poison.get(int(sample), 1.0) for sample in sample_ids]))
        inputs = {
            "input_ids": ids, "lengths": torch.from_numpy(self.lengths[sample_ids]),
            "target_positions": positions, "target_ids": ids[positions],
            "factor": torch.tensor(factor),
        }  # fmt: skip
        return Batch(inputs=inputs, num_targets=positions.numel(), num_tokens=ids.numel())


class Poisonable(nn.Module):
    """A loss that a batch can multiply."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, factor: Tensor, **inputs: Tensor) -> Tensor:
        value: Tensor = self.loss(**inputs)
        return value * factor


class Recorder:
    """Stands for meters: keeps the outcomes and can ask for a stop."""

    def __init__(self, stop: StopRequest, stop_at: int | None) -> None:
        self.outcomes: list[StepOutcome] = []
        self.rewinds: list[int] = []
        self._stop, self._stop_at = stop, stop_at

    def record(self, outcome: StepOutcome) -> None:
        self.outcomes.append(outcome)
        if outcome.step + 1 == self._stop_at:
            self._stop.signal_number = 15

    def rewind(self, step: int) -> None:
        self.rewinds.append(step)
        self.outcomes = [outcome for outcome in self.outcomes if outcome.step <= step]


def build_module(run: Run, group: ProcessGroup) -> nn.Module:
    """Return the tiny model's loss with first weights, taken apart under ZeRO-3."""

    def build() -> Any:
        return make_model(run.model, Family.FILL_MASK)

    parallelism = ParallelismSpec.model_validate(run.zero)
    model = build_first(build, build, group, parallelism).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = run.dropout
    if run.lora:
        add_adapters(model, run.lora, seed=1, trains_head=False)
    return Poisonable(
        build_loss(
            model, Family.FILL_MASK, "flat", checkpoints_activations=run.checkpoints_activations
        )
    )


def samples_of(run: Run, *steps: int) -> list[int]:
    """Return the samples of some steps of a run's sequence, from 1, as long as none is rewound."""
    source = Rows(run.num_samples, {})
    planner = StepPlanner(source.lengths, ShuffledOrder(run.num_samples, seed=3), tokens=run.tokens)
    position, found = Position(), []
    for step in range(1, max(steps) + 1):
        plan = planner.plan(position)
        position = plan.next
        if step in steps:
            found += plan.sample_ids.tolist()
    return found


def train(
    run: Run,
    group: ProcessGroup,
    *,
    validation: Validation | None = None,
    validate_every_steps: int | None = None,
    patience: int | None = None,
) -> Seen:
    """Train, going on from what the folder holds."""
    source = Rows(run.num_samples, run.poison)
    planner = StepPlanner(source.lengths, ShuffledOrder(run.num_samples, seed=3), tokens=run.tokens)
    workspace = Workspace(str(run.folder))
    store = CheckpointStore(workspace, fingerprint={"is": "toy"}, keep_last=2)
    parallelism = ParallelismSpec.model_validate({**run.zero, "precision": run.precision})
    stop = StopRequest()
    recorder = Recorder(stop, run.stop_at)
    settings = LoopSettings(
        title="toy", optimizer=run.optimizer, seed=11, num_steps=run.num_steps,
        save_every_steps=run.save_every_steps, spikes=run.spikes,
        validate_every_steps=validate_every_steps, patience=patience,
    )  # fmt: skip
    try:
        state, engine = start_engine(
            lambda: build_module(run, group), store, group,
            lambda module: build_engine(module, run.optimizer, parallelism, group),
        )  # fmt: skip
        with Loader(
            source, planner, group_rank=group.rank, group_size=group.size, micro_tokens=24,
            layout="flat",
        ) as loader:  # fmt: skip
            company = Company(
                store=store, stop=stop, meters=recorder,  # type: ignore[arg-type]
                validation=validation, best=BestWeights(workspace, num_kept=3),
            )  # fmt: skip
            loop = TrainingLoop(engine, loader, planner, settings, group, company)
            end = loop.run(state)
        store.wait(group)
        weights = {name: value.clone() for name, value in named_weights(engine)}
    finally:
        store.close()
    return Seen(
        end=end, outcomes=recorder.outcomes, rewinds=recorder.rewinds, weights=weights,
        engine=engine,
    )  # fmt: skip
