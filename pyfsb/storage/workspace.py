# SPDX-License-Identifier: Apache-2.0
"""A local folder that stands for a place on storage while a stage works in it.

For a folder on disk the workspace is that folder. For an `s3://` prefix it is a mirror below
`FSB_CACHE` (default `~/.cache/fsb`): `pull` brings what is missing, `push` sends what was written.
Every stage opens one on its output; nothing else maps URIs to paths.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pyfsb import storage

_ALWAYS_READ_BYTES = 1 << 20


def cache_folder() -> Path:
    """Return the folder for mirrors and downloads, from `FSB_CACHE`."""
    return Path(os.environ.get("FSB_CACHE") or Path("~/.cache/fsb").expanduser())


class Workspace:
    """The local side of one folder on storage."""

    def __init__(self, uri: str) -> None:
        """Open the place; nothing is read or made yet.

        Args:
            uri: A folder path or `s3://bucket/prefix`.
        """
        self.uri = storage.absolute(uri)
        self.is_mirror = storage.is_s3(self.uri)
        if self.is_mirror:
            name = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
            self.path = cache_folder() / "mirrors" / name
        else:
            self.path = Path(self.uri)

    def pull(self, *folders: str) -> Path:
        """Bring the files below the given sub-folders (all, when none is named).

        Files that are there with the right size are kept, small ones are read again: a record
        may be replaced by one of the same size.

        Returns:
            The local folder.
        """
        if self.is_mirror:
            for folder in folders or ("",):
                base = storage.join(self.uri, folder) if folder else self.uri
                for file in storage.list_files(base):
                    target = self.path / folder / file.path
                    is_here = target.is_file() and target.stat().st_size == file.num_bytes
                    if not is_here or file.num_bytes < _ALWAYS_READ_BYTES:
                        storage.download(storage.join(base, file.path), target)
        return self.path

    def push(self, paths: Iterable[Path]) -> None:
        """Send local files, or every file below local folders, in the order given."""
        if not self.is_mirror:
            return
        for path in paths:
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    name = file.relative_to(self.path).as_posix()
                    storage.upload(file, storage.join(self.uri, name))

    def remove(self, folder: str) -> None:
        """Delete a sub-folder here and there; what marks it complete goes first (`*.json`)."""
        if self.is_mirror:
            base = storage.join(self.uri, folder)
            files = storage.list_files(base)
            for file in sorted(files, key=lambda file: not file.path.endswith(".json")):
                storage.delete(storage.join(base, file.path))
        shutil.rmtree(self.path / folder, ignore_errors=True)


def localise(uri: str) -> Path:
    """Return a local path with everything below a folder or prefix in it."""
    return Workspace(uri).pull()
