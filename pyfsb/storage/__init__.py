# SPDX-License-Identifier: Apache-2.0
"""Folders and S3 prefixes behind one set of verbs; the only room that knows which is which.

Every stage reads and writes through these functions or through a `Workspace`. A missing file is a
`DataError`, a failing disk or store is a `StorageError`; every write is whole or absent.
"""

from __future__ import annotations

import glob
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyfsb.errors import DataError
from pyfsb.storage.backends import (
    Backend,
    LocalBackend,
    StoredFile,
    explain_os_error,
    explaining_full_disk,
    replacing,
)
from pyfsb.storage.s3 import S3Backend
from pyfsb.storage.uris import (
    absolute,
    glob_matches,
    is_hub,
    is_s3,
    join,
    normalise,
    relative,
    resolve,
    split_glob,
)

__all__ = [
    "StoredFile",
    "absolute",
    "delete",
    "download",
    "exists",
    "explain_os_error",
    "explaining_full_disk",
    "find_files",
    "is_hub",
    "is_s3",
    "join",
    "list_files",
    "normalise",
    "read_bytes",
    "read_text",
    "read_versioned",
    "relative",
    "replacing",
    "resolve",
    "size",
    "swaps_safely",
    "upload",
    "version",
    "write_bytes",
    "write_if_absent",
    "write_if_unchanged",
    "write_text",
]

_LOCAL: Final = LocalBackend()
_S3: Final = S3Backend()


def _backend(uri: str) -> Backend:
    return _S3 if is_s3(uri) else _LOCAL


def read_bytes(uri: str) -> bytes:
    """Return a file's bytes.

    Raises:
        DataError: There is no such file.
        StorageError: The disk or store failed.
    """
    return _backend(uri).read(normalise(uri))


def read_text(uri: str) -> str:
    """Return a file's text.

    Raises:
        DataError: There is no such file, or it is not UTF-8.
    """
    try:
        return read_bytes(uri).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DataError(f"{uri} is not UTF-8 at byte {exc.start}") from None


def write_bytes(uri: str, data: bytes) -> None:
    """Put a file, whole or not at all; folders above it are made."""
    _backend(uri).write(normalise(uri), data)


def write_text(uri: str, text: str) -> None:
    """Put a UTF-8 text file, whole or not at all."""
    write_bytes(uri, text.encode())


def write_if_absent(uri: str, data: bytes) -> bool:
    """Put a file unless one is there; return whether it was put."""
    return _backend(uri).write_if_absent(normalise(uri), data)


def read_versioned(uri: str) -> tuple[bytes, str] | None:
    """Return a file's bytes and what `write_if_unchanged` compares, or None when it is not there.

    Raises:
        StorageError: The disk or store failed.
    """
    return _backend(uri).read_versioned(normalise(uri))


def write_if_unchanged(uri: str, data: bytes, version: str | None) -> bool:
    """Put a file if it is still what `read_versioned` gave; return whether it was put.

    Of several writers that read the same version one succeeds, on a disk by a lock beside the
    file, on S3 by `If-Match`; `swaps_safely` says whether a store keeps that condition.

    Args:
        uri: The file.
        data: Its new bytes.
        version: What `read_versioned` gave; None puts it only where there is none.
    """
    return _backend(uri).write_if_unchanged(normalise(uri), data, version)


def swaps_safely(folder: str) -> bool:
    """Say whether the store of a folder keeps `If-Match` and `If-None-Match`, by trying it."""
    if not is_s3(folder):
        return True
    probe = join(folder, f".probe-{uuid.uuid4().hex}")
    try:
        return (
            write_if_unchanged(probe, b"1", None)
            and not write_if_unchanged(probe, b"2", None)
            and not write_if_unchanged(probe, b"2", '"00000000000000000000000000000000"')
        )
    finally:
        delete(probe)


def exists(uri: str) -> bool:
    """Say whether a file (not a folder) is there."""
    return _backend(uri).exists(normalise(uri))


def size(uri: str) -> int:
    """Return a file's size in bytes.

    Raises:
        DataError: There is no such file.
    """
    return _backend(uri).size(normalise(uri))


def version(uri: str) -> str:
    """Return what changes with a file's content (S3: the ETag); empty on a disk.

    Raises:
        DataError: There is no such file.
    """
    return _backend(uri).version(normalise(uri))


def list_files(uri: str) -> list[StoredFile]:
    """Return every file below a folder or prefix, sorted by path; empty when there is none."""
    return _backend(uri).list_files(normalise(uri))


def find_files(root: str, pattern: str) -> list[StoredFile]:
    """Return the files that a glob matches below a folder or prefix, sorted by path.

    `*` stays within one folder and `**` crosses them, on a disk and on S3 alike.

    Args:
        root: The folder or prefix.
        pattern: Relative to it, or an absolute path or s3:// URI, then paths are such, too.
    """
    if is_s3(pattern):
        fixed, rest = split_glob(pattern)
        prefix = f"{fixed}/" if rest else ""
        found = find_files(fixed, rest) if rest else _stored(pattern)
        return [replace(file, path=f"{prefix}{file.path}") for file in found]
    if is_s3(root):
        fixed, rest = split_glob(pattern)
        if not rest:
            return _stored(join(root, pattern), path=pattern)
        found = list_files(join(root, fixed) if fixed else root)
        prefix = f"{fixed}/" if fixed else ""
        return [
            replace(file, path=f"{prefix}{file.path}")
            for file in found
            if glob_matches(rest, file.path)
        ]
    names = glob.glob(pattern, root_dir=None if os.path.isabs(pattern) else root, recursive=True)
    paths = [(name, Path(root, name)) for name in sorted(names)]
    return [
        StoredFile(path=name, num_bytes=path.stat().st_size)
        for name, path in paths
        if path.is_file()
    ]


def _stored(uri: str, path: str = "") -> list[StoredFile]:
    if not exists(uri):
        return []
    return [StoredFile(path=path or uri, num_bytes=size(uri))]


def delete(uri: str) -> None:
    """Remove a file; nothing happens when it is not there."""
    _backend(uri).delete(normalise(uri))


def upload(path: Path, uri: str) -> None:
    """Copy a local file to a place, whole or not at all; large files go to S3 in parts."""
    _backend(uri).upload(path, normalise(uri))


def download(uri: str, path: Path) -> None:
    """Copy a file from a place to a local path, whole or not at all."""
    _backend(uri).download(normalise(uri), path)
