# SPDX-License-Identifier: Apache-2.0
"""What a saved state says and holds: found, checked, fetched and read on one rank.

Called by `restoring`, which makes all ranks agree. Never writes a state.
"""

from __future__ import annotations

import contextlib
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import xxhash
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from pyfsb import storage
from pyfsb.errors import CheckpointError, ConfigError, DataError
from pyfsb.records import FileEntry
from pyfsb.schema import Json, Schema, parse
from pyfsb.storage.workspace import Workspace
from pyfsb.training import state_folder as folders
from pyfsb.training.batching import Position
from pyfsb.training.fragments import Fragment
from pyfsb.training.sharding import (
    KINDS,
    Read,
    StoredParameter,
    check_covered,
    describe_difference,
    plan_reads,
)
from pyfsb.training.state_files import (
    FOLDER,
    FORMAT_VERSION,
    INDEX_NAME,
    ITEM_BYTES,
    STATE_NAME,
    read_header,
)

_INDEX: Final = TypeAdapter(dict[str, StoredParameter])


class TrainState(Schema):
    """Where a training stands after a step."""

    step: int = 0
    """Optimizer steps taken, those included that left the weights as they were."""
    epoch: int = 0
    """Passes over the samples completed."""
    offset: int = 0
    """Samples taken of the current pass."""
    num_samples: int = 0
    """Samples seen in all."""
    num_tokens: int = 0
    """Tokens seen in all, padding not counted."""
    guard: Json = {}
    """What else the loop remembers: loss scale, gradient norms, validation."""

    @property
    def position(self) -> Position:
        """The next sample."""
        return Position(epoch=self.epoch, offset=self.offset)


class SavedState(Schema):
    """Content of state.json."""

    format_version: int
    """Raised when the layout changes."""
    state: TrainState
    """Where the training stood."""
    fingerprint: dict[str, str]
    """Digests of what the state depends on; a run with others may not continue from it."""
    architecture: str
    """Kind of the model."""
    world_size: int
    """Ranks that saved it."""
    zero_stage: int
    """How they held it."""
    num_updates: int
    """Steps that the moments have seen: those left out do not count."""
    files: tuple[FileEntry, ...]
    """index.json and the ranks' files."""


class BrokenStateError(Exception):
    """A saved state that is incomplete or changed; the one before it may be whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A saved state that may be continued from."""

    name: str
    """Name of its folder."""
    is_stored: bool
    """It is on S3; else in the local folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """A state whose state.json and index.json are read and fit each other."""

    candidate: Candidate
    folder: Path
    """Where its files are, or come to lie, on this machine."""
    uri: str | None
    """Where on S3 they are; None for local ones."""
    saved: SavedState
    index: Mapping[str, StoredParameter]


def list_candidates(workspace: Workspace) -> list[Candidate]:
    """Return the complete states, newest first; of one step, what was never uploaded goes first.

    In a mirror, a local state that was uploaded completely counts only as long as the store has it.

    Raises:
        StorageError: The store failed.
    """
    folder = workspace.path / FOLDER
    local = folders.local_states(folder)
    if not workspace.is_mirror:
        return [Candidate(name=name, is_stored=False) for name in local]
    stored = folders.stored_states(storage.join(workspace.uri, FOLDER))
    waiting = {name for name in local if not (folder / name / folders.UPLOADED_NAME).exists()}
    return [
        Candidate(name=name, is_stored=is_stored)
        for name in folders.newest_first({*stored, *waiting})
        for is_stored in (False, True)
        if name in (stored if is_stored else waiting)
    ]


def read_texts(workspace: Workspace, candidate: Candidate) -> tuple[bytes, bytes]:
    """Return the contents of a state's state.json and index.json.

    Raises:
        BrokenStateError: One of them is missing.
        StorageError: The disk or the store failed.
    """
    place = _place(workspace, candidate)
    try:
        state, index = (
            storage.read_bytes(storage.join(place, name)) for name in (STATE_NAME, INDEX_NAME)
        )
    except DataError as exc:
        raise BrokenStateError(str(exc)) from None
    return state, index


def open_state(
    workspace: Workspace, candidate: Candidate, texts: tuple[bytes, bytes]
) -> FoundState:
    """Return a state from what `read_texts` gave.

    Raises:
        BrokenStateError: They are damaged or do not belong together.
        CheckpointError: They are of another version of this program.
    """
    place = _place(workspace, candidate)
    source = storage.join(place, STATE_NAME)
    try:
        value = json.loads(texts[0])
        version = value["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{source} has format_version {version}; this program reads {FORMAT_VERSION}: "
                "continue with the program that saved it, or choose another output"
            )
        saved = parse(SavedState, value, source=source)
        _check_bytes(texts[1], saved, INDEX_NAME, place)
        index = _INDEX.validate_json(texts[1])
        check_covered(index)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, ConfigError, DataError, ValidationError) as exc:
        raise BrokenStateError(f"{source}: {exc}") from None
    return FoundState(
        candidate=candidate,
        folder=workspace.path / FOLDER / candidate.name,
        uri=place if candidate.is_stored else None,
        saved=saved,
        index=index,
    )


def check_fits(
    found: FoundState,
    *,
    architecture: str,
    shapes: Mapping[str, tuple[int, ...]],
    fingerprint: Mapping[str, str],
) -> None:
    """Check that a state is of this training.

    Args:
        found: The state.
        architecture: Kind of this training's model.
        shapes: Its trainable parameters.
        fingerprint: Digests of what the state must depend on.

    Raises:
        CheckpointError: It is of another architecture, or of other settings or data.
    """
    place = found.uri or str(found.folder)
    saved, remedy = found.saved, "choose another output, or remove that folder to start over"
    difference = describe_difference(found.index, shapes)
    if saved.architecture != architecture or difference:
        raise CheckpointError(
            f"{place} holds a model of architecture {saved.architecture!r}, this training's is "
            f"{architecture!r}{': ' if difference else ''}{difference or ''}; {remedy}"
        )
    keys = saved.fingerprint.keys() | fingerprint.keys()
    if changed := sorted(k for k in keys if saved.fingerprint.get(k) != fingerprint.get(k)):
        raise CheckpointError(f"{place} was saved with another {', '.join(changed)}; {remedy}")


class Files:
    """Those files of a state that hold what one rank needs, verified and mapped."""

    def __init__(self, found: FoundState, fragments: Sequence[Fragment]) -> None:
        """Plan; nothing is read yet.

        Args:
            found: The state.
            fragments: What this rank holds; filled in by `load`.
        """
        self._found = found
        self._fragments = fragments
        self._plan = plan_reads(found.index, [fragment.piece for fragment in fragments])
        self._maps: dict[str, mmap.mmap] = {}

    def verify(self) -> None:
        """Fetch what is only on S3, and check sizes and hashes of all files needed.

        Raises:
            BrokenStateError: Names the file that is missing or changed.
            StorageError: The disk or the store failed.
        """
        entries = {entry.path: entry for entry in self._found.saved.files}
        for name in self._plan:
            if name not in entries:
                raise BrokenStateError(f"{self._found.folder / name} is not in {STATE_NAME}")
            self._maps[name] = self._open(entries[name])

    def load(self) -> None:
        """Copy the state into the fragments' memory, one read at a time."""
        with torch.no_grad():
            for name, reads in self._plan.items():
                with memoryview(self._maps[name]) as data:
                    places = read_header(data, str(self._found.folder / name))
                for read in reads:
                    self._copy(np.frombuffer(self._maps[name], dtype=np.uint8), places, read)

    def _copy(
        self, data: NDArray[np.uint8], places: Mapping[str, tuple[int, int]], read: Read
    ) -> None:
        target = self._fragments[read.target]
        for kind, tensor in zip(KINDS, target.tensors, strict=True):
            begin = places[f"{kind}/{read.name}"][0] + read.source_start * ITEM_BYTES
            source = data[begin : begin + read.numel * ITEM_BYTES].view(np.float32)
            part = tensor.narrow(0, read.target_start, read.numel)
            if part.device.type == "cpu":
                np.copyto(part.detach().numpy(), source)
            else:
                part.copy_(torch.from_numpy(source))

    def _open(self, entry: FileEntry) -> mmap.mmap:
        path = self._found.folder / entry.path
        if self._found.uri is None:
            return _map_verified(path, entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # ranks of a machine fetch it once
            with contextlib.suppress(BrokenStateError):
                return _map_verified(path, entry)
            try:
                storage.download(storage.join(self._found.uri, entry.path), path)
            except DataError as exc:
                raise BrokenStateError(str(exc)) from None
            return _map_verified(path, entry)


def _map_verified(path: Path, entry: FileEntry) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise BrokenStateError(f"{path} is missing; {STATE_NAME} lists it") from None
    except (OSError, ValueError) as exc:  # an empty file cannot be mapped
        raise BrokenStateError(f"{path}: {exc}") from None
    if len(data) != entry.num_bytes:
        raise BrokenStateError(f"{path} has {len(data)} bytes; {STATE_NAME} says {entry.num_bytes}")
    if xxhash.xxh3_128_hexdigest(data) != entry.xxh3:
        raise BrokenStateError(f"{path} differs from {STATE_NAME} (expected xxh3 {entry.xxh3})")
    return data


def _check_bytes(data: bytes, saved: SavedState, name: str, place: str) -> None:
    entries = {entry.path: entry for entry in saved.files}
    if name not in entries or xxhash.xxh3_128_hexdigest(data) != entries[name].xxh3:
        raise BrokenStateError(f"{storage.join(place, name)} differs from {STATE_NAME}")


def _place(workspace: Workspace, candidate: Candidate) -> str:
    root = workspace.uri if candidate.is_stored else str(workspace.path)
    return storage.join(root, f"{FOLDER}/{candidate.name}")
