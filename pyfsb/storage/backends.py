# SPDX-License-Identifier: Apache-2.0
"""What a place to store files must be able to do, and the local disk's way of doing it.

Called through `pyfsb.storage` only. Every write is whole or absent: a temporary file beside the
target, flushed, then renamed. Errors are `StorageError` with the path and the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import xxhash
from filelock import FileLock, Timeout

from pyfsb.errors import DataError, StorageError

_LOCK_SECONDS: Final = 30.0
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file below a listed place."""

    path: str
    """Relative to the listed place, with forward slashes."""
    num_bytes: int
    """Size in bytes."""
    version: str = ""
    """Changes with the content (S3: the ETag); empty on a disk."""


class Backend(Protocol):
    """The operations on one kind of storage; `uri` is always normalised."""

    def read(self, uri: str) -> bytes:
        """Return a file's bytes."""

    def write(self, uri: str, data: bytes) -> None:
        """Put a file, whole or not at all."""

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        """Put a file unless one is there; return whether it was put."""

    def read_versioned(self, uri: str) -> tuple[bytes, str] | None:
        """Return a file's bytes and its version for `write_if_unchanged`, or None."""

    def write_if_unchanged(self, uri: str, data: bytes, version: str | None) -> bool:
        """Put a file if it has that version still (None: is absent); return whether it was put."""

    def exists(self, uri: str) -> bool:
        """Say whether a file is there."""

    def size(self, uri: str) -> int:
        """Return a file's size in bytes."""

    def version(self, uri: str) -> str:
        """Return what changes with a file's content, or an empty text."""

    def list_files(self, uri: str) -> list[StoredFile]:
        """Return every file below a place, sorted by path."""

    def delete(self, uri: str) -> None:
        """Remove a file; nothing happens when it is not there."""

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file there, whole or not at all."""

    def download(self, uri: str, path: Path) -> None:
        """Copy a file from there, whole or not at all."""


class LocalBackend:
    """Files on a mounted disk."""

    def read(self, uri: str) -> bytes:
        """Return a file's bytes."""
        with _explained(uri, "read"):
            return Path(uri).read_bytes()

    def write(self, uri: str, data: bytes) -> None:
        """Put a file, whole or not at all."""
        with replacing(Path(uri)) as file:
            file.write(data)

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        """Put a file unless one is there (a hard link to a whole one); return whether it was."""
        temporary = Path(f"{uri}.{uuid.uuid4().hex}")
        try:
            self.write(os.fspath(temporary), data)
            with _explained(uri, "write"):
                os.link(temporary, uri)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def read_versioned(self, uri: str) -> tuple[bytes, str] | None:
        """Return a file's bytes and their hash, or None when it is not there."""
        if not self.exists(uri):
            return None
        data = self.read(uri)
        return data, xxhash.xxh3_128_hexdigest(data)

    def write_if_unchanged(self, uri: str, data: bytes, version: str | None) -> bool:
        """Put a file if it has those bytes still, under a lock beside it."""
        lock = Path(f"{uri}.lock")
        with _explained(uri, "write"):
            lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=_LOCK_SECONDS):
                found = self.read_versioned(uri)
                if (found[1] if found else None) != version:
                    return False
                self.write(uri, data)
        except Timeout:
            raise StorageError(
                f"cannot write {uri}: another process has held {lock} for {_LOCK_SECONDS:g} s"
            ) from None
        except OSError as exc:
            raise explain_os_error(exc, uri, "lock") from exc
        return True

    def exists(self, uri: str) -> bool:
        """Say whether a file is there."""
        return Path(uri).is_file()

    def size(self, uri: str) -> int:
        """Return a file's size in bytes."""
        with _explained(uri, "look for"):
            return Path(uri).stat().st_size

    def version(self, uri: str) -> str:
        """Return an empty text: files on a disk are compared by size and time."""
        return ""

    def list_files(self, uri: str) -> list[StoredFile]:
        """Return every file below a folder, sorted by path; one that goes meanwhile is left out."""
        root, found = Path(uri), []
        with _explained(uri, "list"):
            for path in root.rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    if stat.S_ISREG(status.st_mode):
                        name = path.relative_to(root).as_posix()
                        found.append(StoredFile(path=name, num_bytes=status.st_size))
        return sorted(found, key=lambda file: file.path)

    def delete(self, uri: str) -> None:
        """Remove a file; nothing happens when it is not there."""
        with _explained(uri, "delete"):
            Path(uri).unlink(missing_ok=True)

    def upload(self, path: Path, uri: str) -> None:
        """Copy a file to a folder of this disk."""
        with replacing(Path(uri)) as target, path.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)

    def download(self, uri: str, path: Path) -> None:
        """Copy a file from a folder of this disk."""
        self.upload(Path(uri), os.fspath(path))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes `path`'s place when the block ends well.

    Raises:
        StorageError: The disk is full or refuses; the old file, if any, is untouched.
    """
    with _explained(os.fspath(path), "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _explained(uri: str, action: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except FileNotFoundError:
        raise DataError(f"cannot {action} {uri}: no such file or folder") from None
    except OSError as exc:
        raise explain_os_error(exc, uri, action) from exc


@contextlib.contextmanager
def explaining_full_disk(folder: Path) -> Iterator[None]:
    """Tell a full disk with its free space where many small writes go to one folder.

    Args:
        folder: Where the block writes.

    Raises:
        StorageError: The disk is full; other errors pass as they are.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        raise explain_os_error(exc, os.fspath(folder), "write to") from exc


def explain_os_error(exc: OSError, uri: str, action: str) -> StorageError:
    """Return the storage error of a failed system call; a full disk is told with its free space."""
    if exc.errno in _FULL:
        folder = next(
            parent for parent in [Path(uri), *Path(uri).absolute().parents] if parent.is_dir()
        )
        free = shutil.disk_usage(folder).free
        return StorageError(
            f"disk full: cannot {action} {uri}, {free / 2**20:.1f} MiB free on that disk; "
            "free some space or choose another output, then run the same command again"
        )
    return StorageError(f"cannot {action} {uri}: {exc.strerror or exc}")
