# SPDX-License-Identifier: Apache-2.0
"""Folders of the data stage: made beside their place, moved there with their record.

Called by `prepare` and `row_sets`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pyfsb import records, storage
from pyfsb.records import DatasetRecord, FileEntry
from pyfsb.storage.workspace import Workspace


def make_partial(workspace: Workspace, name: str) -> Path:
    """Return an empty folder beside the final one; what an earlier, killed run left is removed.

    Raises:
        StorageError: The disk refuses.
    """
    partial = workspace.path / f".partial-{name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as exc:
        raise storage.explain_os_error(exc, str(partial), "make") from exc
    return partial


def publish(workspace: Workspace, partial: Path, name: str, record: DatasetRecord) -> None:
    """Move a complete folder to its place, its record last."""
    final = workspace.path / name
    shutil.rmtree(final, ignore_errors=True)
    if workspace.is_mirror:
        partial.rename(final)
        workspace.push([final])
        records.write_record(record, storage.join(workspace.uri, name))
    else:
        records.write_record(record, str(partial))
        partial.rename(final)


def describe_inputs(paths: Sequence[Path], names: Sequence[str]) -> tuple[FileEntry, ...]:
    """Return size and digest of input files, under the names that users know."""
    return tuple(
        FileEntry(path=name, num_bytes=path.stat().st_size, xxh3=records.hash_file(path))
        for name, path in zip(names, paths, strict=True)
    )
