# SPDX-License-Identifier: Apache-2.0
"""Training state on storage: safetensors and JSON, whole or absent, verified on load.

    state/step-00000100/weights.safetensors    fp32 parameters by name
                        optimizer.safetensors  moments by name
                        state.json             position, digests of both files; written last

It holds full tensors, so any number of processes and any ZeRO stage can continue from it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyfsb import storage
from pyfsb.errors import CheckpointError, DataError, StorageError
from pyfsb.records import FileEntry, describe_files, verify_files
from pyfsb.schema import Schema, parse
from pyfsb.storage.workspace import Workspace
from pyfsb.training.batching import Position
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.meters import METRICS_NAME

FOLDER: Final = "state"
STATE_NAME: Final = "state.json"
WEIGHTS_NAME: Final = "weights.safetensors"
MOMENTS_NAME: Final = "optimizer.safetensors"
_log = logging.getLogger(__name__)


class TrainState(Schema):
    """Where a training stands after a step."""

    step: int = 0
    """Optimizer steps taken."""
    epoch: int = 0
    """Passes over the samples completed."""
    offset: int = 0
    """Samples taken of the current pass."""
    num_samples: int = 0
    """Samples seen in all."""
    num_tokens: int = 0
    """Tokens seen in all, padding not counted."""

    @property
    def position(self) -> Position:
        """The next sample."""
        return Position(epoch=self.epoch, offset=self.offset)


class SavedState(Schema):
    """Content of state.json."""

    format_version: int = 1
    """Raised when the layout changes."""
    state: TrainState
    """Where the training stood."""
    fingerprint: dict[str, str]
    """Digests of what the state depends on; a run with others may not continue from it."""
    files: tuple[FileEntry, ...]
    """The tensors' files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A saved state, loaded and verified."""

    state: TrainState
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]


class CheckpointStore:
    """Saves and finds the training states of one run."""

    def __init__(
        self, workspace: Workspace, *, fingerprint: Mapping[str, str], keep_last: int
    ) -> None:
        """Open the store of a training folder.

        Args:
            workspace: The training's folder.
            fingerprint: Digests that a saved state must share to be continued.
            keep_last: Saved states to keep.
        """
        self._workspace = workspace
        self._folder = workspace.path / FOLDER
        self._fingerprint = dict(fingerprint)
        self._keep_last = keep_last
        self._broken: set[str] = set()

    def save(self, engine: Engine, state: TrainState, group: ProcessGroup) -> None:
        """Save a state; every process takes part, the first one writes.

        Raises:
            StorageError: The disk is full or refuses; earlier states are untouched.
        """
        weights, moments = dict(engine.weights()), dict(engine.moments())
        if group.is_first:
            self._write(weights, moments, state)
        group.barrier()

    def load_latest(self) -> Restored | None:
        """Return the newest state that is complete and unchanged, or None.

        Raises:
            CheckpointError: It was saved by a run with other settings or data.
        """
        self._workspace.pull_exactly(FOLDER)
        for folder in self._saved():
            try:
                return self._read(folder)
            except _BrokenStateError as exc:
                _log.warning("%s; going back to the state before it", exc)
                self._broken.add(folder.name)
        return None

    def _write(
        self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], state: TrainState
    ) -> None:
        final = self._folder / f"step-{state.step:08d}"
        partial = self._folder / f".partial-{state.step:08d}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write_tensors(weights, partial / WEIGHTS_NAME)
            write_tensors(moments, partial / MOMENTS_NAME)
            saved = SavedState(
                state=state,
                fingerprint=self._fingerprint,
                files=describe_files(partial, partial.glob("*.safetensors")),
            )
            (partial / STATE_NAME).write_text(json.dumps(saved.to_json(), indent=2))
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        except OSError as exc:
            shutil.rmtree(partial, ignore_errors=True)
            raise storage.explain_os_error(exc, str(final), "save the training state in") from exc
        except StorageError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        metrics = self._workspace.path / METRICS_NAME
        names = (WEIGHTS_NAME, MOMENTS_NAME, STATE_NAME)
        self._workspace.push([metrics, *(final / name for name in names)])
        self._remove_old(final)

    def _remove_old(self, newest: Path) -> None:
        """Keep the state just written and the last whole ones before it."""
        self._broken.discard(newest.name)
        saved = self._saved()
        whole = [f for f in saved if f.name <= newest.name and f.name not in self._broken]
        for folder in set(saved) - set(whole[: self._keep_last]):
            self._workspace.remove(f"{FOLDER}/{folder.name}")

    def _saved(self) -> list[Path]:
        """Return the folders of saved states, newest first."""
        return sorted(self._folder.glob("step-*"), reverse=True)

    def _read(self, folder: Path) -> Restored:
        try:
            value = json.loads((folder / STATE_NAME).read_text())
            saved = parse(SavedState, value, source=str(folder / STATE_NAME))
            verify_files(saved.files, folder)
            weights = load_file(folder / WEIGHTS_NAME)
            moments = load_file(folder / MOMENTS_NAME)
        except (OSError, ValueError, SafetensorError, DataError) as exc:
            raise _BrokenStateError(f"{folder}: {exc}") from None
        if saved.fingerprint != self._fingerprint:
            changed = _changed(saved.fingerprint, self._fingerprint)
            raise CheckpointError(
                f"{folder} was saved with another {', '.join(changed)}; choose another output, or "
                "remove that folder to start over"
            )
        return Restored(state=saved.state, weights=weights, moments=moments)


class _BrokenStateError(Exception):
    """A saved state that is incomplete or changed."""


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file and make sure it is on the disk.

    Raises:
        StorageError: The disk is full.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as exc:
        raise explain_write_error(exc, path, "write") from None


def explain_write_error(exc: OSError | SafetensorError, path: Path, action: str) -> StorageError:
    """Return the storage error of a failed write; safetensors wraps the system's error in text."""
    if isinstance(exc, SafetensorError):
        is_full = "No space left" in str(exc)
        exc = OSError(errno.ENOSPC if is_full else errno.EIO, str(exc))
    return storage.explain_os_error(exc, str(path), action)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[str]:
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
