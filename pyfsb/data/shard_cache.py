# SPDX-License-Identifier: Apache-2.0
"""A node's bounded store of shard files that lie on S3, shared by all processes of the node.

Files are named by the xxh3 of their bytes, so equal files of any corpus are kept once:

    DIGEST          a whole, verified file; whoever reads it holds a shared lock on it
    .room-DIGEST    as long as the file will be; its downloader holds a lock on it
    .part-DIGEST    what has arrived
    locks/          one lock for room, 256 for downloads

A file is there whole or not at all, is fetched by one process while the others wait for it, and is
never removed while it is in use. All locks are the kernel's: they end with their process, however
it ends. Called by `streaming`; never decides which shards are needed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from pyfsb import storage
from pyfsb.errors import DataError, StorageError
from pyfsb.records import FileEntry, hash_file

_MAX_MISMATCHES: Final = 3
"""A file that differs from the index as often is wrong in the store, not on the way."""
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.2, 15.0
_ROOM_PAUSE_SECONDS: Final = 0.1
_COMING: Final = 1

_log = logging.getLogger(__name__)


class ShardCache:
    """Files by digest, at most so many bytes of them."""

    def __init__(self, folder: Path, *, max_bytes: int | None, patience_seconds: float) -> None:
        """Make the folder if needed.

        Args:
            folder: On a disk of this node.
            max_bytes: Files in it are removed above this. None keeps all.
            patience_seconds: A store that fails for longer, or room that does not come free for
                longer, is an error.

        Raises:
            StorageError: The folder cannot be made.
        """
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise storage.explain_os_error(exc, str(folder), "write") from exc
        self._folder = folder
        self._max_bytes = max_bytes
        self._patience_seconds = patience_seconds
        self._ranks: Mapping[str, int] = {}
        self._stopped = threading.Event()
        self._idle_releases: list[Callable[[], None]] = []

    def when_full(self, release: Callable[[], None]) -> None:
        """Register what lets go of files that this process holds without reading them just now.

        Args:
            release: Called when there is no room for a file that is needed now.
        """
        self._idle_releases.append(release)

    def plan(self, ranks: Mapping[str, int]) -> None:
        """Say how soon files are needed again.

        Args:
            ranks: By digest: 0 now, 1 next, and so on. What is needed last is removed first; what
                is in no plan goes before that, the least lately used first.
        """
        self._ranks = ranks

    def open(self, uri: str, entry: FileEntry) -> BinaryIO:
        """Return a file, opened; it is not removed as long as it is open or mapped.

        Args:
            uri: Where it lies on storage.
            entry: Its size and digest.

        Raises:
            DataError: It is missing on storage, or differs from its entry.
            StorageError: The store or the disk failed for longer than the patience.
        """
        while True:
            path = self._folder / entry.xxh3
            if not self.has(entry):
                self.fetch(uri, entry, is_urgent=True)
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue  # removed between the two
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink:
                os.utime(path)
                return file
            file.close()

    def has(self, entry: FileEntry) -> bool:
        """Say whether a file is there."""
        try:
            return (self._folder / entry.xxh3).stat().st_size == entry.num_bytes
        except FileNotFoundError:
            return False

    def fetch(self, uri: str, entry: FileEntry, *, is_urgent: bool) -> bool:
        """Bring a file if it is not there.

        Args:
            uri: Where it lies on storage.
            entry: Its size and digest.
            is_urgent: It is needed now: wait for its lock and for room, and displace what is only
                needed next. False returns at once when either is not free.

        Returns:
            Whether it is there.

        Raises:
            DataError: It is missing on storage, or differs from its entry.
            StorageError: The store or the disk failed for longer than the patience.
        """
        with self._locked(entry.xxh3[:2], waits=is_urgent) as is_mine:
            if is_mine and not self.has(entry):
                with self._room(entry, is_urgent=is_urgent) as has_room:
                    if has_room:
                        self._download(uri, entry)
        return self.has(entry)

    def stop(self) -> None:
        """End all waiting, now and later, with an error."""
        self._stopped.set()

    @contextlib.contextmanager
    def _locked(self, name: str, *, waits: bool = True) -> Iterator[bool]:
        """Hold a lock of the node; yields whether it was got."""
        with (self._folder / "locks" / name).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _download(self, uri: str, entry: FileEntry) -> None:
        part = self._folder / f".part-{entry.xxh3}"
        deadline = time.monotonic() + self._patience_seconds
        pause, num_mismatches = _FIRST_PAUSE_SECONDS, 0
        try:
            while True:
                problem: StorageError | DataError
                try:
                    storage.download(uri, part)
                    if part.stat().st_size == entry.num_bytes and hash_file(part) == entry.xxh3:
                        part.replace(self._folder / entry.xxh3)
                        return
                    num_mismatches += 1
                    problem = DataError(
                        f"{uri} differs from the index (expected {entry.num_bytes} bytes, xxh3 "
                        f"{entry.xxh3})"
                    )
                    if num_mismatches == _MAX_MISMATCHES:
                        raise problem
                except StorageError as exc:
                    problem = self._explain_full_disk(exc, entry)
                    if time.monotonic() + pause > deadline:
                        raise
                _log.warning("%s; trying again in %.1f s", problem, pause)
                if self._stopped.wait(pause):
                    raise StorageError(f"stopped while reading {uri}")
                pause = min(2 * pause, _LAST_PAUSE_SECONDS)
        finally:
            part.unlink(missing_ok=True)

    def _explain_full_disk(self, exc: StorageError, entry: FileEntry) -> StorageError:
        """Return the error to try again after; a disk that is full raises at once."""
        cause = exc.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise self._disk_full(entry) from cause
        return exc

    def _disk_full(self, entry: FileEntry) -> StorageError:
        free = shutil.disk_usage(self._folder).free
        return StorageError(
            f"disk full: a shard of {entry.num_bytes} bytes does not fit into {self._folder} "
            f"({free} bytes free); set data.cache_bytes and data.shuffle_shards, free some space, "
            "or set FSB_CACHE to a larger disk"
        )

    @contextlib.contextmanager
    def _room(self, entry: FileEntry, *, is_urgent: bool) -> Iterator[bool]:
        """Hold room for a file for the length of the block; yields whether there was any."""
        file = self._wait_for_room(entry) if is_urgent else self._try_room(entry, is_urgent=False)
        if file is None:
            yield False
            return
        try:
            with file:
                yield True
        finally:
            Path(file.name).unlink(missing_ok=True)

    def _wait_for_room(self, entry: FileEntry) -> BinaryIO:
        deadline = time.monotonic() + self._patience_seconds
        while True:
            file = self._try_room(entry, is_urgent=True)
            if file is not None:
                return file
            for release in self._idle_releases:
                release()
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{self._folder}: no room for a shard of {entry.num_bytes} bytes within "
                    f"{self._max_bytes} bytes (data.cache_bytes), all others were in use for "
                    f"{self._patience_seconds:g} s; raise data.cache_bytes"
                )
            if self._stopped.wait(_ROOM_PAUSE_SECONDS):
                raise StorageError(f"{self._folder}: stopped while waiting for room")

    def _try_room(self, entry: FileEntry, *, is_urgent: bool) -> BinaryIO | None:
        """Take room for a file, removing others; None when what is in use leaves none."""
        with self._locked("room"):
            used, free = self._used_bytes(), shutil.disk_usage(self._folder).free
            lacking = entry.num_bytes - free
            if self._max_bytes is not None:
                lacking = max(lacking, used + entry.num_bytes - self._max_bytes)
                lacking -= self._evict(lacking, is_urgent=is_urgent)
            if lacking > 0:
                if self._max_bytes is None or entry.num_bytes > free + used:
                    raise self._disk_full(entry)
                return None
            file = (self._folder / f".room-{entry.xxh3}").open("wb")
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(entry.num_bytes)  # a hole: it takes no space itself
            return file

    def _used_bytes(self) -> int:
        """Return the bytes of all files and rooms; clears up after downloaders that died."""
        used = 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name.startswith(".room-") and _remove_unused(path):
                    for left in self._folder.glob(f".*part-{path.name.removeprefix('.room-')}*"):
                        left.unlink(missing_ok=True)
                elif path.name.startswith(".room-") or not path.name.startswith("."):
                    used += path.stat().st_size if path.is_file() else 0
        return used

    def _evict(self, lacking: int, *, is_urgent: bool) -> int:
        """Remove files that nobody reads until enough is free; return the bytes of them."""
        ranks = self._ranks
        found: list[tuple[float, float, Path, int]] = []
        for path in self._folder.iterdir():
            rank = ranks.get(path.name)
            # Prefetching displaces nothing that is needed sooner; a read goes on in any case.
            is_kept = not is_urgent and rank is not None and rank <= _COMING
            if is_kept or path.name.startswith(".") or not path.is_file():
                continue
            status = path.stat()
            order = -float("inf") if rank is None else -float(rank)
            found.append((order, status.st_mtime, path, status.st_size))
        freed = 0
        for _, _, path, num_bytes in sorted(found):
            if freed < lacking and _remove_unused(path):
                freed += num_bytes
        return freed


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a process holds a lock on it; the caller holds the lock of room."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
    return True
