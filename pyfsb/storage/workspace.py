# SPDX-License-Identifier: Apache-2.0
"""A local folder that stands for a place on storage while a stage works in it.

For a folder on disk the workspace is that folder. For an `s3://` prefix it is a mirror below
`FSB_CACHE` (default `~/.cache/fsb`): `pull` brings what is missing, `push` sends what was written.
The mirror remembers which version of an object each file is, so a changed one is read again.
Processes of one machine share a mirror and take turns with it: the first one brings a file, the
others find it. Every stage opens one on its output; nothing else maps URIs to paths.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from pyfsb import storage

_VERSIONS_NAME = ".versions.json"
"""In a mirror: for each file the object's version, and size and time of the file itself."""


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

        What is here in the version that the store has is kept.

        Returns:
            The local folder.
        """
        if self.is_mirror:
            with self._turn():
                for folder in folders or ("",):
                    base = storage.join(self.uri, folder) if folder else self.uri
                    found = storage.list_files(base)
                    self._fetch({f"{folder}/{file.path}".lstrip("/"): file for file in found})
        return self.path

    def pull_exactly(self, folder: str) -> Path:
        """Bring a sub-folder and delete what is only here: the store is what counts.

        Returns:
            The local sub-folder.
        """
        if self.is_mirror:
            with self._turn():
                files = storage.list_files(storage.join(self.uri, folder))
                names = {f"{folder}/{file.path}" for file in files}
                for path in (self.path / folder).rglob("*"):
                    if path.is_file() and path.relative_to(self.path).as_posix() not in names:
                        path.unlink(missing_ok=True)
                self._fetch({f"{folder}/{file.path}": file for file in files})
        return self.path / folder

    def pull_file(self, name: str) -> None:
        """Bring one file of the folder; nothing happens when the store has none."""
        if self.is_mirror and storage.exists(storage.join(self.uri, name)):
            storage.download(storage.join(self.uri, name), self.path / name)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Let no other process of this machine touch the mirror for the length of the block."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            yield

    def _fetch(self, files: Mapping[str, storage.StoredFile]) -> None:
        versions = self._read_versions()
        for name, file in files.items():
            if versions.get(name) != _describe(file.version, self.path / name):
                storage.download(storage.join(self.uri, name), self.path / name)
                versions[name] = _describe(file.version, self.path / name)
        if files:
            storage.write_text(str(self.path / _VERSIONS_NAME), json.dumps(versions))

    def _read_versions(self) -> dict[str, list[str | int]]:
        path = self.path / _VERSIONS_NAME
        versions: dict[str, list[str | int]] = (
            json.loads(path.read_text()) if path.is_file() else {}
        )
        return versions

    def push(self, paths: Iterable[Path]) -> None:
        """Send local files, or every file below local folders, in the order given."""
        if not self.is_mirror:
            return
        with self._turn():
            versions = self._read_versions()
            for path in paths:
                files = sorted(path.rglob("*")) if path.is_dir() else [path]
                for file in files:
                    if file.is_file():
                        name = file.relative_to(self.path).as_posix()
                        storage.upload(file, storage.join(self.uri, name))
                        # Noted, so that what was just sent is not read back.
                        version = storage.version(storage.join(self.uri, name))
                        versions[name] = _describe(version, file)
            storage.write_text(str(self.path / _VERSIONS_NAME), json.dumps(versions))

    def remove(self, folder: str) -> None:
        """Delete a sub-folder here and there; what marks it complete goes first (`*.json`)."""
        if self.is_mirror:
            base = storage.join(self.uri, folder)
            files = storage.list_files(base)
            for file in sorted(files, key=lambda file: not file.path.endswith(".json")):
                storage.delete(storage.join(base, file.path))
        shutil.rmtree(self.path / folder, ignore_errors=True)


def _describe(version: str, path: Path) -> list[str | int]:
    """Return what tells whether a local file is still the object of that version."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [version, status.st_size, status.st_mtime_ns]


def localise(uri: str) -> Path:
    """Return a local path with everything below a folder or prefix in it."""
    return Workspace(uri).pull()
