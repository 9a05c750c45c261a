# SPDX-License-Identifier: Apache-2.0
"""Memory that a training process fills and its writer process reads: the bytes of a state's file.

The memory belongs to no name: the kernel frees it when both processes are gone, so a killed
training leaves none behind, and the size of /dev/shm does not matter. It is mapped and touched
before the first save, so that saving costs one copy. Called by `checkpoint`.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyfsb.training.fragments import Fragment
from pyfsb.training.sharding import KINDS, Piece
from pyfsb.training.state_files import ITEM_BYTES, build_header


class Arena:
    """The image of one process's file; the header is in it from the start."""

    def __init__(self, fragments: Sequence[Fragment], device: torch.device) -> None:
        """Make room for fragments of these sizes.

        Args:
            fragments: What will be saved.
            device: Where they lie; from an accelerator copies go to pinned memory.
        """
        self.pieces: list[Piece] = [fragment.piece for fragment in fragments]
        names = [(f"{kind}/{piece.name}", piece.numel) for kind in KINDS for piece in self.pieces]
        header, offsets = build_header(names)
        self.num_bytes = len(header) + ITEM_BYTES * sum(numel for _, numel in names)
        self.file_descriptor = _anonymous_file()
        os.ftruncate(self.file_descriptor, self.num_bytes)
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        memory = mmap.mmap(self.file_descriptor, self.num_bytes, flags=flags)
        memory[: len(header)] = header
        whole = np.frombuffer(memory, dtype=np.uint8)
        self._parts = [
            whole[offsets[name] : offsets[name] + ITEM_BYTES * numel].view(np.float32)
            for name, numel in names
        ]
        self._address = whole.ctypes.data
        self._pinned_by = _pin(whole, device)

    def fill(self, fragments: Sequence[Fragment]) -> None:
        """Copy the fragments in; returns when their memory may change again."""
        for part, tensor in zip(self._parts, _tensors(fragments), strict=True):
            if tensor.device.type == "cpu":
                np.copyto(part, tensor.detach().numpy())
            else:
                torch.from_numpy(part).copy_(tensor.detach(), non_blocking=True)
        _synchronize(fragments)

    def restore(self, fragments: Sequence[Fragment]) -> None:
        """Copy back what was filled in last."""
        with torch.no_grad():
            for part, tensor in zip(self._parts, _tensors(fragments), strict=True):
                tensor.copy_(torch.from_numpy(part))
        _synchronize(fragments)

    def close(self) -> None:
        """Give the memory back; the writer may hold it for a while longer."""
        if self._pinned_by is not None:
            self._pinned_by.cudaHostUnregister(self._address)
            self._pinned_by = None
        self._parts = []
        os.close(self.file_descriptor)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fsb-state", 0)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _tensors(fragments: Sequence[Fragment]) -> list[Tensor]:
    return [fragment.tensors[kind] for kind in range(len(KINDS)) for fragment in fragments]


def _synchronize(fragments: Sequence[Fragment]) -> None:
    for device in {fragment.weight.device for fragment in fragments}:
        if device.type != "cpu":
            torch.get_device_module(device).synchronize(device)


def _pin(whole: NDArray[np.uint8], device: torch.device) -> Any:
    """Register the memory with a CUDA driver; None where there is none: copies are slower then."""
    if device.type == "cpu":
        return None
    runtime = getattr(torch.get_device_module(device), "cudart", None)
    if runtime is None:
        return None
    library = runtime()
    return library if int(library.cudaHostRegister(whole.ctypes.data, whole.size, 0)) == 0 else None
