# SPDX-License-Identifier: Apache-2.0
"""The process that writes and uploads states while training goes on: one beside each rank.

`pyfsb.training.writing` starts it with the rank's memory and its settings; commands come as JSON
lines on stdin, reports go out on stdout. It dies with its rank. It never imports torch, so it
starts in a moment and takes no share of the training's interpreter lock.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import xxhash

from pyfsb import storage
from pyfsb.errors import FsbError, StorageError
from pyfsb.processes import die_with_parent
from pyfsb.training import state_folder as folders
from pyfsb.training.state_files import (
    FOLDER,
    INDEX_NAME,
    STATE_NAME,
    entry_name,
    merge_index,
    rank_name,
    step_name,
)

_CHUNK_BYTES: Final = 16 << 20
_LOCAL_POLL_SECONDS: Final = 0.01
_STORE_POLL_SECONDS: Final = 0.5
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0
_NICENESS: Final = 5
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a writer is told when it starts."""

    file_descriptor: int
    """Memory with the image of this rank's file."""
    parent: int
    """Process id of the rank."""
    path: str
    """The training's folder, or its mirror on this machine."""
    uri: str | None
    """Where on S3 states go besides. None: nowhere."""
    rank: int
    size: int
    is_shared: bool
    """All ranks see the same local folder."""
    keep_last: int
    keep_every_steps: int | None
    stale: tuple[str, ...]
    """States that may not be continued from; they go when the first new one is complete."""
    extra_files: tuple[str, ...]
    """Files of the training's folder that the first rank uploads with each state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """One state to be written."""

    step: int
    save: str
    """Names the attempt, equal on all ranks."""
    num_bytes: int
    """Length of the image in memory."""
    parameters: dict[str, Any]
    """For each parameter in this rank's file: shape, first element, number of elements."""
    manifest: dict[str, Any]
    """Content of state.json but for the files."""

    @property
    def name(self) -> str:
        """Name of the state's folder."""
        return step_name(self.step)


class Writer:
    """Writes states in the order in which they are saved, then makes them complete elsewhere."""

    def __init__(self, settings: Settings) -> None:
        """Start without a state.

        Args:
            settings: From the rank.
        """
        self._settings = settings
        self._folder = Path(settings.path) / FOLDER
        self._states_uri = storage.join(settings.uri, FOLDER) if settings.uri else None
        self._stale = set(settings.stale)
        self.saves: queue.SimpleQueue[Save] = queue.SimpleQueue()
        self._written: queue.SimpleQueue[Save] = queue.SimpleQueue()
        self._completed: queue.SimpleQueue[Save] = queue.SimpleQueue()

    def write_forever(self) -> None:
        """Write what is saved, one after the other; a thread's work."""
        while True:
            self._write(self.saves.get())

    def _write(self, save: Save) -> None:
        """Write this rank's file and the note that it is there; afterwards memory may change."""
        try:
            folder = self._partial(save)
            entry = self._with_room(lambda: self._write_file(save, folder))
            entry |= {"parameters": save.parameters}
            note = json.dumps(entry).encode()
            path = folder / entry_name(self._settings.rank, save.save)
            self._with_room(lambda: folders.write_synced(path, note))
        except (OSError, FsbError) as exc:
            self._fail(save, exc)
            return
        report("written", save.step)
        self._written.put(save)

    def complete_forever(self) -> None:
        """Make written states complete on this disk, one after the other; a thread's work.

        It does not wait for the store: while that fails, local states are there to continue from.
        """
        while True:
            save = self._written.get()
            try:
                if self._settings.is_shared and self._settings.rank == 0:
                    self._complete_locally(save)
            except (OSError, FsbError) as exc:
                self._fail(save, exc)
                continue
            if self._states_uri is None:
                report("published", save.step)
            else:
                self._completed.put(save)

    def upload_forever(self) -> None:
        """Bring states to the store, one after the other; a thread's work."""
        while True:
            save = self._completed.get()
            try:
                self._upload(save, str(self._states_uri))
            except FileNotFoundError as exc:  # a full disk: the oldest states went, others follow
                report("log", save.step, text=f"{exc.filename} went before it was uploaded")
                report("published", save.step)
            except (OSError, FsbError) as exc:
                self._fail(save, exc)
            else:
                report("published", save.step)

    def _upload(self, save: Save, states_uri: str) -> None:
        settings = self._settings
        if settings.is_shared and settings.rank > 0:
            while self._partial(save).is_dir():
                time.sleep(_LOCAL_POLL_SECONDS)
        local = self._folder / save.name
        own = local / rank_name(settings.rank)
        place = storage.join(states_uri, save.name)
        note = local / entry_name(settings.rank, save.save)
        for path in (own, note):
            self._persist(storage.upload, path, storage.join(place, path.name))
        if settings.rank == 0:
            self._complete_on_store(save, local, place)
        elif not settings.is_shared:
            self._forget_old_copies()

    def _write_file(self, save: Save, folder: Path) -> dict[str, Any]:
        """Write the image of the file, hashing it on the way; returns its entry."""
        folder.mkdir(parents=True, exist_ok=True)
        name = rank_name(self._settings.rank)
        temporary = folder / f".{name}.new"
        digest = xxhash.xxh3_128()
        with (
            mmap.mmap(
                self._settings.file_descriptor, save.num_bytes, prot=mmap.PROT_READ
            ) as memory,
            memoryview(memory) as image,
            temporary.open("wb", buffering=0) as file,
        ):
            for start in range(0, save.num_bytes, _CHUNK_BYTES):
                with image[start : start + _CHUNK_BYTES] as chunk:
                    digest.update(chunk)
                    written = 0
                    while written < len(chunk):
                        with chunk[written:] as rest:
                            written += file.write(rest)
            os.fsync(file.fileno())
        temporary.replace(folder / name)
        return {"path": name, "num_bytes": save.num_bytes, "xxh3": digest.hexdigest()}

    def _complete_locally(self, save: Save) -> None:
        partial = self._partial(save)
        paths = [partial / entry_name(rank, save.save) for rank in range(self._settings.size)]
        for path in paths:
            while not path.is_file():
                time.sleep(_LOCAL_POLL_SECONDS)
        entries = [check_entry(json.loads(path.read_bytes())) for path in paths]
        index, state = build_manifest(save.manifest, entries)
        self._with_room(lambda: folders.write_synced(partial / INDEX_NAME, index))
        self._with_room(lambda: folders.write_synced(partial / STATE_NAME, state))
        if self._states_uri is None:  # else they are uploaded, too
            for path in paths:
                path.unlink()
        folders.appear(partial, self._folder / save.name)
        if self._states_uri is None:
            self._stale.discard(save.name)
            self._remove_old(folders.local_states(self._folder), folders.remove_local, self._folder)

    def _complete_on_store(self, save: Save, local: Path, place: str) -> None:
        names = [entry_name(rank, save.save) for rank in range(self._settings.size)]
        while missing := set(names) - self._persist(_names_at, place):
            time.sleep(_STORE_POLL_SECONDS if len(missing) > 1 else _STORE_POLL_SECONDS / 2)
        if self._settings.is_shared:
            index, state = (local / INDEX_NAME).read_bytes(), (local / STATE_NAME).read_bytes()
        else:
            notes = [self._persist(storage.read_bytes, storage.join(place, name)) for name in names]
            entries = [check_entry(json.loads(note)) for note in notes]
            index, state = build_manifest(save.manifest, entries)
        for name in self._settings.extra_files:
            path = Path(self._settings.path, name)
            if path.is_file():
                self._persist(storage.upload, path, storage.join(str(self._settings.uri), name))
        self._persist(storage.write_bytes, storage.join(place, INDEX_NAME), index)
        self._persist(storage.write_bytes, storage.join(place, STATE_NAME), state)
        (local / folders.UPLOADED_NAME).touch()
        for name in names:
            self._persist(storage.delete, storage.join(place, name))
        self._stale.discard(save.name)
        for name in self._stale:
            folders.remove_local(self._folder, name)
        uri = str(self._states_uri)
        self._remove_old(self._persist(folders.stored_states, uri), folders.remove_stored, uri)
        self._forget_old_copies()

    def _remove_old(
        self, complete: list[str], remove: Callable[[Any, str], None], place: object
    ) -> None:
        whole = [name for name in complete if name not in self._stale]
        settings = self._settings
        going = folders.expired(
            whole, keep_last=settings.keep_last, keep_every_steps=settings.keep_every_steps
        )
        for name in [*sorted(self._stale), *going]:
            self._persist(remove, place, name)
        self._stale.clear()

    def _forget_old_copies(self) -> None:
        """Keep as many local copies as the store keeps states; those on the store stay there."""
        names = folders.newest_first(path.name for path in self._folder.glob("step-*"))
        for name in names[self._settings.keep_last :]:
            is_sent = (self._folder / name / folders.UPLOADED_NAME).exists()
            if is_sent or not self._settings.is_shared:
                folders.remove_local(self._folder, name)

    def _partial(self, save: Save) -> Path:
        """Return where this rank's file goes first; alone on its disk, it may go to its place."""
        if self._settings.is_shared:
            return folders.partial_folder(self._folder, save.name, save.save)
        return self._folder / save.name

    def _with_room(self, action: Callable[[], _T]) -> _T:
        """Do something that fills the disk; a full one first loses its oldest states."""
        while True:
            try:
                return action()
            except OSError as exc:
                if exc.errno not in _FULL:
                    raise
                every = self._settings.keep_every_steps
                names = folders.local_states(self._folder)
                gone = folders.make_room(self._folder, names, keep_every_steps=every)
                if gone is None:
                    raise
                report("log", 0, text=f"disk full: the saved state {gone} was deleted")

    def _persist(self, action: Callable[..., _T], *arguments: object) -> _T:
        """Do something with the store until it succeeds; the rank decides how long to wait."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return action(*arguments)
            except StorageError as exc:
                report("stumbled", 0, text=str(exc))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _fail(self, save: Save, exc: OSError | FsbError) -> None:
        """Report a failure here and, in place of the rank's note, to the first rank's writer."""
        folder = self._partial(save)
        if isinstance(exc, OSError):
            action = "save the training state in"
            exc = storage.explain_os_error(exc, str(self._folder / save.name), action)
        report("failed", save.step, text=str(exc), error=type(exc).__name__)
        if self._settings.is_shared and self._settings.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            return
        try:
            (folder / rank_name(self._settings.rank)).unlink(missing_ok=True)
            note = json.dumps({"error": str(exc)}).encode()
            folders.write_synced(folder / entry_name(self._settings.rank, save.save), note)
        except OSError:
            pass  # the disk is full to the last byte; the ranks hear of it at the next save


def check_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a rank's note.

    Raises:
        StorageError: The rank could not write its file.
    """
    if "error" in entry:
        raise StorageError(entry["error"])
    return entry


def build_manifest(manifest: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[bytes, bytes]:
    """Return the contents of index.json and of state.json, which lists all files."""
    index = json.dumps(merge_index(entries), separators=(",", ":")).encode()
    own = {
        "path": INDEX_NAME, "num_bytes": len(index), "xxh3": xxhash.xxh3_128_hexdigest(index),
    }  # fmt: skip
    files = [own, *({key: entry[key] for key in own} for entry in entries)]
    return index, json.dumps(manifest | {"files": files}, indent=2).encode()


def report(event: str, step: int, **details: object) -> None:
    """Tell the rank what happened."""
    line = json.dumps({"event": event, "step": step, **details}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())


def _names_at(uri: str) -> set[str]:
    return {file.path for file in storage.list_files(uri)}


def main() -> None:
    """Serve one rank until it closes stdin or ends."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the rank decides when to end
        signal.signal(number, signal.SIG_IGN)
    settings = Settings(**json.loads(sys.argv[1]))
    die_with_parent(settings.parent)
    os.nice(_NICENESS)
    writer = Writer(settings)
    for work in (writer.write_forever, writer.complete_forever, writer.upload_forever):
        threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin:
        writer.saves.put(Save(**json.loads(line)))
    os._exit(0)  # threads may be at work for a rank that is gone


if __name__ == "__main__":
    main()
