# SPDX-License-Identifier: Apache-2.0
"""The process group: who this process is, and the few sums that training needs.

The device comes from DeepSpeed's accelerator object; `DS_ACCELERATOR=cpu` is set here where no
accelerator is found, so that nothing else asks for one.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from pyfsb.config import ParallelismSpec, default_threads
from pyfsb.training.timing import time_collectives

_TIMEOUT = timedelta(minutes=30)
_STORE_TIMEOUT = timedelta(seconds=5)
_ALARM_KEY = "fsb/alarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """This process among the others."""

    rank: int
    """Number of this process, from 0."""
    size: int
    """Number of processes."""
    device: torch.device
    """Where its tensors live."""

    @property
    def is_first(self) -> bool:
        """True for the process that writes."""
        return self.rank == 0

    def sum(self, values: Iterable[float]) -> list[float]:
        """Return each value summed over all processes, in float64."""
        tensor = torch.tensor(list(values), dtype=torch.float64)
        if self.size > 1:
            tensor = tensor.to(self.device)
            distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of ranks, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values


def join_group(parallelism: ParallelismSpec) -> ProcessGroup:
    """Join the process group that torchrun's environment describes.

    Args:
        parallelism: CPU threads of this process.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    torch.set_num_threads(default_threads(parallelism))
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    backend = (
        "gloo" if accelerator.device_name() == "cpu" else accelerator.communication_backend_name()
    )
    if backend == "nccl":
        os.environ.setdefault("TORCH_NCCL_ENABLE_TIMING", "1")  # events for `timing`
    time_collectives(on_device=backend == "nccl")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that its extension is there
        deepspeed.init_distributed(dist_backend=backend, timeout=_TIMEOUT, verbose=False)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    name = "cpu" if backend == "gloo" else accelerator.device_name(local_rank)
    return ProcessGroup(
        rank=distributed.get_rank(), size=distributed.get_world_size(), device=torch.device(name)
    )


def describe_device(device: torch.device) -> str | None:
    """Return what the driver calls a device, or None for a CPU and where nobody says."""
    module = getattr(torch, device.type, None)
    ask = getattr(module, "get_device_name", None)
    return None if device.type == "cpu" or ask is None else str(ask(device))


class StoreAlarm:
    """A text in torchrun's store that every rank can see; a connection of its own.

    The process group's connection is no use: a thread that waits in it keeps all others out.
    """

    def __init__(self, store: Any) -> None:
        """Listen on a store that nobody else of this process uses."""
        self._store = store

    def call(self, text: str) -> None:
        """Tell all ranks.

        Raises:
            OSError: The store is gone.
        """
        try:
            self._store.compare_set(_ALARM_KEY, "", text)
        except RuntimeError as exc:
            raise ConnectionError(str(exc).split("\n")[0]) from None

    def heard(self) -> str | None:
        """Return what a rank told first, or None.

        Raises:
            OSError: The store is gone.
        """
        try:
            is_there = self._store.check([_ALARM_KEY])
            return self._store.get(_ALARM_KEY).decode() if is_there else None
        except RuntimeError as exc:
            raise ConnectionError(str(exc).split("\n")[0]) from None


def open_alarm() -> StoreAlarm | None:
    """Return an alarm in the store that torchrun's environment names, or None without one."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
            timeout=_STORE_TIMEOUT, wait_for_workers=False,
        )  # fmt: skip
    except (KeyError, ValueError, RuntimeError):
        return None
    return StoreAlarm(store)


def peak_device_bytes() -> int | None:
    """Return the most memory of this process's device that was in use so far, None on a CPU."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    return None if accelerator.device_name() == "cpu" else int(accelerator.max_memory_allocated())


def leave_group() -> None:
    """Leave the process group."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
