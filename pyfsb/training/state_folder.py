# SPDX-License-Identifier: Apache-2.0
"""The folder of saved states: what is complete, what appears whole, what goes.

On a disk that all processes share, a state is a folder that takes its name when every file is in
it. On S3 it is complete when its state.json is there. Called by `checkpoint` and by the writer
process, so it is light. Never reads a tensor.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from pyfsb import storage
from pyfsb.training.state_files import STATE_NAME, step_of

UPLOADED_NAME: Final = ".uploaded"
"""In a local copy that the store has completely: from then on the store's word counts."""
_REMOVED: Final = ".removed-"
_REPLACED: Final = ".replaced-"
_PARTIAL: Final = ".partial-"


def partial_folder(folder: Path, name: str, save: str) -> Path:
    """Return where the files of a state gather before it is complete."""
    return folder / f"{_PARTIAL}{name}.{save}"


def newest_first(names: Iterable[str]) -> list[str]:
    """Return the names that are those of states, newest first."""
    steps = {name: step for name in names if (step := step_of(name)) is not None}
    return sorted(steps, key=lambda name: steps[name], reverse=True)


def local_states(folder: Path) -> list[str]:
    """Return the complete states of a folder on disk, newest first."""
    return newest_first(path.parent.name for path in folder.glob(f"step-*/{STATE_NAME}"))


def stored_states(uri: str) -> list[str]:
    """Return the complete states below an S3 prefix, newest first.

    Raises:
        StorageError: The store failed.
    """
    files = [file.path.split("/") for file in storage.list_files(uri)]
    return newest_first(parts[0] for parts in files if parts[1:] == [STATE_NAME])


def expired(names: Collection[str], *, keep_last: int, keep_every_steps: int | None) -> list[str]:
    """Return which of some complete states go, oldest first.

    Args:
        names: Complete states.
        keep_last: Newest states to keep.
        keep_every_steps: States of multiples of this step are kept for good.
    """
    old = newest_first(names)[keep_last:]
    return [name for name in reversed(old) if not is_kept_for_good(name, keep_every_steps)]


def is_kept_for_good(name: str, keep_every_steps: int | None) -> bool:
    """Say whether a state belongs to those that never go."""
    step = step_of(name)
    return bool(keep_every_steps and step and step % keep_every_steps == 0)


def appear(partial: Path, final: Path) -> None:
    """Give a complete folder its name; one of that name, if any, goes."""
    sync_folder(partial)
    replaced = final.with_name(f"{_REPLACED}{final.name}")
    if final.is_dir():
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    partial.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_local(folder: Path, name: str) -> None:
    """Delete a state from disk; it disappears at once and as a whole."""
    doomed = folder / f"{_REMOVED}{name}"
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        (folder / name).rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_stored(uri: str, name: str) -> None:
    """Delete a state from S3; what marks it complete goes first."""
    place = storage.join(uri, name)
    files = [file.path for file in storage.list_files(place)]
    for path in sorted(files, key=lambda path: path != STATE_NAME):
        storage.delete(storage.join(place, path))


def clear_leftovers(folder: Path) -> None:
    """Finish or undo what a killed process had begun in a folder that nobody writes to now."""
    for path in folder.glob(f"{_REPLACED}*"):
        final = folder / path.name.removeprefix(_REPLACED)
        if not final.exists():  # killed between the two renames
            path.rename(final)
    for prefix in (_PARTIAL, _REMOVED, _REPLACED):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)


def make_room(folder: Path, names: Sequence[str], *, keep_every_steps: int | None) -> str | None:
    """Delete the oldest state from a full disk, never the newest.

    Args:
        folder: Where the states are.
        names: The complete ones, newest first.
        keep_every_steps: States of multiples of this step are kept for good.

    Returns:
        Its name, or None when nothing could go.
    """
    for name in reversed(names[1:]):
        if not is_kept_for_good(name, keep_every_steps):
            remove_local(folder, name)
            return name
    return None


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file and make sure that it is on the disk; it appears whole."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Make sure that a folder's names are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
