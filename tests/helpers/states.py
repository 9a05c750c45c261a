"""A toy engine with real states: one writer process, real files, ranks as threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyfsb.storage.workspace import Workspace
from pyfsb.training import restoring
from pyfsb.training.checkpoint import CheckpointStore, TrainState
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.fragments import initialize_moments

ALONE = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))


class Net(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.a = nn.Linear(3, width)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


class ToyEngine:
    """AdamW without DeepSpeed: what fragments see of a stage 0 engine."""

    stage = 0

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        trained = [p for p in module.parameters() if p.requires_grad]
        self.zero_optimizer = self.base_optimizer = torch.optim.AdamW(trained)
        initialize_moments(self)

    def fill(self, value: float) -> None:
        """Set weights and moments to numbers that tell the value."""
        with torch.no_grad():
            for number, parameter in enumerate(self.base_optimizer.state):
                parameter.fill_(value + number)
                state = self.base_optimizer.state[parameter]
                state["exp_avg"].fill_(value / 2)
                state["exp_avg_sq"].fill_(value / 4)
                state["step"].fill_(value)

    def read(self) -> list[float]:
        found = []
        for parameter, state in self.base_optimizer.state.items():
            values = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"], state["step"])
            assert all(len(set(value.flatten().tolist())) == 1 for value in values)
            found += [float(value.flatten()[0]) for value in values]
        return found


def values_of(value: float) -> list[float]:
    return [part for n in (0, 1) for part in (value + n, value / 2, value / 4, value)]


@dataclass
class Training:
    """A store with its toy engine."""

    place: Path | str
    keep_last: int = 1
    keep_every_steps: int | None = None
    fingerprint: dict[str, str] = field(default_factory=lambda: {"settings": "1"})
    group: ProcessGroup = ALONE
    width: int = 5
    patience_seconds: float = 20.0
    mirror: Path | None = None
    """Stands for the disk of another machine."""

    def __post_init__(self) -> None:
        workspace = Workspace(str(self.place))
        workspace.path = self.mirror or workspace.path
        self.store = CheckpointStore(
            workspace, fingerprint=self.fingerprint, keep_last=self.keep_last,
            keep_every_steps=self.keep_every_steps, patience_seconds=self.patience_seconds,
        )  # fmt: skip

    def start(self) -> Training:
        build: Any = ToyEngine
        self.state, self.engine = restoring.start_engine(
            lambda: Net(self.width), self.store, self.group, build
        )
        return self

    def save(self, step: int, *, waits: bool = True) -> float:
        engine: Any = self.engine
        engine.fill(step)
        return self.store.save(engine, TrainState(step=step), self.group, waits=waits)

    def values(self) -> list[float]:
        engine: Any = self.engine
        found: list[float] = engine.read()
        return found


Make = Callable[..., Training]


def names(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "state").iterdir())


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


class Ranks:
    """Ranks as threads of this process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._values: list[Any] = [None] * size

    def group(self, rank: int) -> ProcessGroup:
        ranks = self

        class Group(ProcessGroup):
            def gather(self, value: Any) -> list[Any]:
                ranks._values[self.rank] = value
                ranks._barrier.wait(30)
                found = list(ranks._values)
                ranks._barrier.wait(30)
                return found

        return Group(rank=rank, size=self.size, device=torch.device("cpu"))

    def run(self, work: Callable[[ProcessGroup], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.size) as pool:
            futures = [pool.submit(work, self.group(rank)) for rank in range(self.size)]
            return [future.result() for future in futures]
