"""B11: what a saved state costs, beside torch.save, DCP and DCP's async_save.

A state of 640 MiB (weights and both moments in fp32) over one and over two ranks, on a local disk;
every side has the same tensors and ends with fsync. Stall is how long training stands still, total
how long until the state is on the disk. Limits: memcpy of a rank's part into warm memory, a raw
write of its bytes with fsync, a raw read. Interleaved; medians with the least and the most.
"""

from __future__ import annotations

import functools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.groups import load, run_ranks

NUM_PARAMETERS = 640 * 2**20 // 12
NUM_LAYERS = 24
NUM_ROUNDS = 5
Rows = dict[str, list[float]]


def make_engine() -> Any:
    """Return a toy engine without ZeRO: matrices and vectors of many sizes, and their moments."""
    import torch
    from torch import nn

    from pyfsb.training.fragments import initialize_moments

    class Engine:
        stage = 0

    width = int((NUM_PARAMETERS / NUM_LAYERS) ** 0.5)
    engine: Any = Engine()
    engine.module = nn.Sequential(*(nn.Linear(width, width) for _ in range(NUM_LAYERS)))
    optimizer = torch.optim.AdamW(engine.module.parameters())
    engine.zero_optimizer = engine.base_optimizer = optimizer
    initialize_moments(engine)
    return engine


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class Sides:
    """What is measured on one rank."""

    def __init__(self, folder: Path, group: Any) -> None:
        import torch

        from pyfsb.storage.workspace import Workspace
        from pyfsb.training.checkpoint import CheckpointStore
        from pyfsb.training.fragments import owned_fragments

        self._folder, self._group = folder, group
        self._engine = make_engine()
        self._store = CheckpointStore(Workspace(str(folder / "ours")), fingerprint={}, keep_last=1)
        self._store.prepare(self._engine, group, resumed=None)
        fragments = owned_fragments(self._engine, rank=group.rank, size=group.size)
        self._tensors = {
            f"{number}/{fragment.name}/{group.rank}": tensor
            for fragment in fragments
            for number, tensor in enumerate(fragment.tensors)
        }
        self._arrays = [tensor.detach().numpy() for tensor in self._tensors.values()]
        self._warm = [np.ones_like(array) for array in self._arrays]
        self._step = 0
        # async_save talks to the other ranks from a thread: it needs a group of its own.
        self._dcp_group = torch.distributed.new_group(backend="gloo")

    def measure(self) -> dict[str, float]:
        """Measure every side once; all ranks begin each together."""
        import torch
        import torch.distributed.checkpoint as dcp

        group, folder = self._group, self._folder
        found: dict[str, float] = {}

        def take(name: str, action: Callable[[], object]) -> None:
            group.barrier()
            found[name] = max(group.gather(timed(action)))

        take("limit: memcpy", self._copy)
        take("limit: raw write", lambda: self._write_raw(folder / f"raw-{group.rank}"))
        take("limit: raw read", lambda: (folder / f"raw-{group.rank}").read_bytes())
        self._step += 1
        started = time.perf_counter()
        take("ours: stall", lambda: self._save())
        self._store.wait(group)
        found["ours: total"] = time.perf_counter() - started
        take("ours: restore", self._restore)
        take("torch.save: stall = total", lambda: self._torch_save(torch))
        places: Any = {"checkpoint_id": folder / "dcp", "process_group": self._dcp_group}
        take("DCP save: stall = total", lambda: dcp.save(dict(self._tensors), **places))
        started = time.perf_counter()
        pending: list[Any] = []
        take(
            "DCP async_save: stall",
            lambda: pending.append(dcp.async_save(dict(self._tensors), **places)),
        )
        pending[0].result()
        found["DCP async_save: total"] = time.perf_counter() - started
        return found

    def close(self) -> None:
        self._store.close()

    def _copy(self) -> None:
        for source, target in zip(self._arrays, self._warm, strict=True):
            np.copyto(target, source)

    def _write_raw(self, path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            for array in self._arrays:
                file.write(memoryview(array).cast("B"))
            os.fsync(file.fileno())

    def _save(self) -> None:
        from pyfsb.training.checkpoint import TrainState

        self._store.save(self._engine, TrainState(step=self._step), self._group)

    def _restore(self) -> None:
        from pyfsb.training.fragments import owned_fragments
        from pyfsb.training.saved_state import Files, list_candidates, open_state, read_texts

        workspace = self._store.workspace
        newest = list_candidates(workspace)[0]
        found = open_state(workspace, newest, read_texts(workspace, newest))
        fragments = owned_fragments(self._engine, rank=self._group.rank, size=self._group.size)
        files = Files(found, fragments)
        files.verify()
        files.load()

    def _torch_save(self, torch: Any) -> None:
        path = self._folder / f"torch-{self._group.rank}"
        torch.save(self._tensors, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def work(folder: Path, group: Any) -> Rows:
    sides = Sides(folder, group)
    sides.measure()  # warm: memory is mapped, code is loaded
    rounds = [sides.measure() for _ in range(NUM_ROUNDS)]
    sides.close()
    return {name: [found[name] for found in rounds] for name in rounds[0]}


def main() -> None:
    load()
    for size in (1, 2):
        folder = Path(tempfile.mkdtemp())
        try:
            rows: Rows = run_ranks(size, functools.partial(work, folder))[0]
        finally:
            shutil.rmtree(folder)
        _print(size, rows)


def _print(size: int, rows: Rows) -> None:
    print(
        f"640 MiB over {size} rank{'s' * (size > 1)}, seconds, median of {NUM_ROUNDS}", flush=True
    )
    for name, values in rows.items():
        print(
            f"  {name:<28} {statistics.median(values):6.3f} ({min(values):.3f} to {max(values):.3f})"
        )
    for name, other in (
        ("ours: stall", "limit: memcpy"),
        ("ours: total", "limit: raw write"),
        ("ours: restore", "limit: raw read"),
    ):
        ratio = _ratio(rows, name, other)
        print(f"  {name} = {ratio:.2f} x {other.removeprefix('limit: ')}")
    for other in ("torch.save: stall = total", "DCP save: stall = total", "DCP async_save: stall"):
        print(f"  {other} = {_ratio(rows, other, 'ours: stall'):.1f} x ours")


def _ratio(rows: Rows, name: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(rows[name], rows[other], strict=True))


if __name__ == "__main__":
    main()
