# SPDX-License-Identifier: Apache-2.0
"""Training state on storage: saved while training goes on, whole or absent.

A save costs the training one copy into memory that a process beside each rank writes from; see
`state_files` for the layout, `writer` for that process, `restoring` for the way back. All ranks
take part in every call but `close`.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from torch import nn

from pyfsb import errors, storage
from pyfsb.errors import FsbError, StorageError
from pyfsb.storage.workspace import Workspace
from pyfsb.training import state_folder as folders
from pyfsb.training.arena import Arena
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.fragments import (
    ShardedEngine,
    exchange_shares,
    optimizer_steps,
    owned_fragments,
)
from pyfsb.training.meters import METER_FILES
from pyfsb.training.saved_state import SavedState, TrainState, list_candidates
from pyfsb.training.state_files import FOLDER, FORMAT_VERSION, step_of
from pyfsb.training.writer import Save, Settings
from pyfsb.training.writing import WriterProcess

__all__ = ["CheckpointStore", "TrainState", "explain_write_error"]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What the ranks agree on before they save."""

    token: str
    """Names this start of the training: notes of an earlier one are not taken for ours."""
    is_shared: bool
    """All ranks see the same local folder."""


class CheckpointStore:
    """Saves the training states of one run, and brings back the last one saved."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        fingerprint: Mapping[str, str],
        keep_last: int,
        keep_every_steps: int | None = None,
        patience_seconds: float = 600.0,
    ) -> None:
        """Describe the store of a training folder; nothing is read or made yet.

        Args:
            workspace: The training's folder.
            fingerprint: Digests that a saved state must share to be continued.
            keep_last: Newest saved states to keep.
            keep_every_steps: States of multiples of this step are kept for good. None keeps none.
            patience_seconds: How long `wait` lets a store fail; while training goes on, uploads
                are tried again without end.
        """
        self.workspace = workspace
        self.fingerprint = dict(fingerprint)
        self._keep_last = keep_last
        self._keep_every_steps = keep_every_steps
        self._patience_seconds = patience_seconds
        self._place: _Place | None = None
        self._arena: Arena | None = None
        self._writer: WriterProcess | None = None
        self._last: tuple[TrainState, int] | None = None
        self._stale: tuple[str, ...] = ()
        self._num_saves = 0

    def open(self, group: ProcessGroup) -> None:
        """Clear what a killed training left, and find out whether all ranks see one folder.

        Raises:
            StorageError: They do not, and there is no S3 to meet on.
        """
        if self._place:
            return
        token = on_first(group, self._probe)
        is_seen = group.gather((self._folder / f".probe-{token}").exists())
        if group.is_first:
            (self._folder / f".probe-{token}").unlink()
        if not all(is_seen) and not self.workspace.is_mirror:
            raise StorageError(
                f"rank {is_seen.index(False)} does not see what rank 0 writes into {self._folder}; "
                "give an output that all machines mount, or an s3:// one"
            )
        self._place = _Place(token=token, is_shared=all(is_seen))

    def prepare(self, engine: ShardedEngine, group: ProcessGroup, *, resumed: int | None) -> None:
        """Make memory and writer ready, so that the first save is as short as the others.

        Args:
            engine: What will be saved.
            group: The ranks.
            resumed: Step of the state continued from. Later ones and incomplete ones are never
                continued from, and go once a new one is complete.
        """
        self.open(group)
        self._stale = on_first(group, lambda: self._find_stale(resumed or 0))
        self._start_writer(engine, group)

    def save(
        self, engine: ShardedEngine, state: TrainState, group: ProcessGroup, *, waits: bool = False
    ) -> float:
        """Save a state; returns when training may change it again.

        Args:
            engine: Stands at `state`.
            state: Where the training stands.
            group: The ranks.
            waits: Return when the state is complete instead.

        Returns:
            How long training stood still, in seconds.

        Raises:
            StorageError: The disk is full or refuses, now or for an earlier state; complete
                states are untouched.
        """
        started = time.monotonic()
        self.open(group)
        arena, writer = self._start_writer(engine, group)
        self._raise_any(group, writer.wait_until_written())
        fragments = owned_fragments(engine, rank=group.rank, size=group.size)
        arena.fill(fragments)
        num_updates = optimizer_steps(engine)
        self._last = (state, num_updates)
        self._num_saves += 1
        assert self._place is not None
        writer.save(
            Save(
                step=state.step,
                save=f"{self._place.token}-{self._num_saves}",
                num_bytes=arena.num_bytes,
                parameters={p.name: [list(p.shape), p.start, p.numel] for p in arena.pieces},
                manifest=self._build_manifest(engine, state, group, num_updates),
            )
        )
        if waits:
            self.wait(group)
        return time.monotonic() - started

    def wait(self, group: ProcessGroup) -> None:
        """Wait until all saved states are complete where they belong, uploads included.

        Raises:
            StorageError: The disk is full, or the store has failed for too long; what is complete
                on this machine stays there.
        """
        failure = None
        if self._writer:
            failure = self._writer.wait_until_published(self._patience_seconds)
        self._raise_any(group, failure)

    def bring_back(
        self, engine: ShardedEngine, group: ProcessGroup
    ) -> tuple[TrainState, int] | None:
        """Copy the last state saved since the start back from memory into the fragments.

        Returns:
            The state and the steps that its moments have seen, or None when there is none.
        """
        if self._last and self._arena:
            self._arena.restore(owned_fragments(engine, rank=group.rank, size=group.size))
            exchange_shares(engine, size=group.size)
        return self._last

    def close(self, is_failed: bool = False) -> None:
        """End the writer and give back the memory.

        Args:
            is_failed: The training failed; what is not complete yet is dropped.
        """
        if self._writer:
            self._writer.close(is_failed=is_failed)
        if self._arena:
            self._arena.close()
        self._writer = self._arena = None

    @property
    def _folder(self) -> Path:
        return self.workspace.path / FOLDER

    def _probe(self) -> str:
        token = uuid.uuid4().hex[:12]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            folders.clear_leftovers(self._folder)
            (self._folder / f".probe-{token}").touch()
        except OSError as exc:
            raise storage.explain_os_error(exc, str(self._folder), "write to") from exc
        return token

    def _find_stale(self, resumed: int) -> tuple[str, ...]:
        whole = {candidate.name for candidate in list_candidates(self.workspace)}
        return tuple(
            name
            for name in self._all_names()
            if name not in whole or (step_of(name) or 0) > resumed
        )

    def _all_names(self) -> list[str]:
        names = {path.name for path in self._folder.glob("step-*")}
        if self.workspace.is_mirror:
            files = storage.list_files(storage.join(self.workspace.uri, FOLDER))
            names |= {file.path.split("/")[0] for file in files}
        return folders.newest_first(names)

    def _start_writer(
        self, engine: ShardedEngine, group: ProcessGroup
    ) -> tuple[Arena, WriterProcess]:
        if self._arena and self._writer:
            return self._arena, self._writer
        assert self._place is not None
        fragments = owned_fragments(engine, rank=group.rank, size=group.size)
        arena = Arena(fragments, group.device)
        writer = WriterProcess(
            Settings(
                file_descriptor=arena.file_descriptor,
                parent=os.getpid(),
                path=str(self.workspace.path),
                uri=self.workspace.uri if self.workspace.is_mirror else None,
                rank=group.rank,
                size=group.size,
                is_shared=self._place.is_shared,
                keep_last=self._keep_last,
                keep_every_steps=self._keep_every_steps,
                stale=self._stale,
                extra_files=METER_FILES,
            )
        )
        self._arena, self._writer = arena, writer
        return arena, writer

    def _build_manifest(
        self, engine: ShardedEngine, state: TrainState, group: ProcessGroup, num_updates: int
    ) -> dict[str, object]:
        saved = SavedState(
            format_version=FORMAT_VERSION,
            state=state,
            fingerprint=self.fingerprint,
            architecture=describe_architecture(engine.module),
            world_size=group.size,
            zero_stage=engine.stage,
            num_updates=num_updates,
            files=(),
        )
        return saved.to_json()

    def _raise_any(self, group: ProcessGroup, failure: FsbError | None) -> None:
        """Raise on all ranks what failed on any of them."""
        raise_first(group.gather(pack(failure)))


def on_first(group: ProcessGroup, action: Callable[[], _T]) -> _T:
    """Return on all ranks what the first one's action returns, or raise what it raises."""
    value, failure = None, None
    if group.is_first:
        try:
            value = action()
        except FsbError as exc:
            failure = exc
    answers = group.gather((value, pack(failure)))
    raise_first([packed for _, packed in answers])
    result: _T = answers[0][0]
    return result


def raise_first(packed: list[tuple[str, str] | None]) -> None:
    """Raise the first rank's error among those that `pack` made of them."""
    for failure in packed:
        if failure:
            raise getattr(errors, failure[0], StorageError)(failure[1])


def pack(failure: FsbError | None) -> tuple[str, str] | None:
    """Return an error's class and text, to be sent to other ranks."""
    return (type(failure).__name__, str(failure)) if failure else None


def describe_architecture(module: nn.Module) -> str:
    """Return the kind of model that a module wraps: its config's model type, or its class."""
    for part in module.modules():
        kind = getattr(getattr(part, "config", None), "model_type", None)
        if isinstance(kind, str) and kind:
            return kind
    return type(module).__name__


def explain_write_error(exc: OSError | SafetensorError, path: Path, action: str) -> StorageError:
    """Return the storage error of a failed write; safetensors wraps the system's error in text."""
    if isinstance(exc, SafetensorError):
        is_full = "No space left" in str(exc)
        exc = OSError(errno.ENOSPC if is_full else errno.EIO, str(exc))
    return storage.explain_os_error(exc, str(path), action)
