# SPDX-License-Identifier: Apache-2.0
"""`python -m serving.fetch URI FOLDER`: bring a checkpoint into a pod before its server starts.

KServe's storage initializer for `fsb+s3://` URIs: the init container of every replica. What the
record lists is read in parallel, checked against the record's hashes, and only then put in place,
the record last; a folder that holds that record already is only checked. A Hugging Face folder
without a record is taken as it is. Never loads a model. Other schemes are KServe's own to bring.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Final

from pyfsb import records, storage
from pyfsb.errors import CheckpointError, ConfigError, DataError
from pyfsb.processes import run_stage_main
from pyfsb.records import RECORD_NAME, CheckpointRecord, FileEntry

SCHEME: Final = "fsb+s3://"
"""Ours alone, so that s3:// URIs of others stay with KServe's own initializer."""
NUM_THREADS: Final = 4
"""Files read at once; boto3 reads the parts of each in parallel. Source: our choice."""
_PARTIAL: Final = ".fetching"

_log = logging.getLogger("serving.fetch")


def storage_uri(uri: str) -> str:
    """Return the URI that our storage knows: `fsb+s3://` and `s3://` lie in an object store.

    Raises:
        ConfigError: It has another scheme.
    """
    if uri.startswith(SCHEME):
        uri = "s3://" + uri.removeprefix(SCHEME)
    if not storage.is_s3(uri):
        raise ConfigError(f"cannot fetch {uri!r}; expected {SCHEME}bucket/folder/")
    return storage.normalise(uri)


def fetch(uri: str, folder: Path) -> None:
    """Bring a checkpoint into a folder, whole or not at all.

    Args:
        uri: `fsb+s3://bucket/prefix/` of a CheckpointRecord or a Hugging Face folder.
        folder: Where it goes; usually a volume, so the folder itself may be there.

    Raises:
        DataError: There is nothing, or what came differs from its record.
        StorageError: The store or the disk failed; a later try may succeed.
    """
    place = storage_uri(uri)
    begin = time.monotonic()
    record = records.find_record(place)
    if record is None:
        entries = _list_entries(place)
    else:
        if not isinstance(record, CheckpointRecord):
            raise CheckpointError(
                f"{uri} holds a {record.kind}; a served model is a CheckpointRecord (the training "
                "folder, or evaluation/TASK/finetune-SEED)"
            )
        entries = record.files
        if _holds(record, folder):
            _log.info("%s is in %s already, checked", record.digest, folder)
            return
    _check_paths(entries, uri)
    partial = folder / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # what a killed try left
    try:
        _download(place, entries, partial)
        if record is not None:
            records.write_record(record, str(partial))
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    num_bytes = sum(entry.num_bytes for entry in entries)
    _log.info(
        "%d files, %.1f MB of %s in %.1f s: %s", len(entries), num_bytes / 1e6, uri,
        time.monotonic() - begin, record.digest if record else "without a record",
    )  # fmt: skip


def _list_entries(place: str) -> tuple[FileEntry, ...]:
    files = storage.list_files(place)
    if not any(file.path == "config.json" for file in files):
        raise DataError(
            f"{place} has neither a {RECORD_NAME} nor a config.json; expected a finished "
            "checkpoint or a Hugging Face folder"
        )
    return tuple(FileEntry(path=file.path, num_bytes=file.num_bytes, xxh3="") for file in files)


def _check_paths(entries: Sequence[FileEntry], uri: str) -> None:
    for entry in entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or path.parts[:1] in ((), (_PARTIAL,)):
            raise CheckpointError(f"{uri} lists a file {entry.path!r} outside of its folder")


def _holds(record: CheckpointRecord, folder: Path) -> bool:
    """Say whether a folder is this checkpoint, whole and unchanged: a container started again."""
    try:
        found = records.find_record(str(folder))
        if found is None or found.digest != record.digest:
            return False
        records.verify_files(record.files, folder)
    except DataError:
        return False
    return True


def _download(place: str, entries: Sequence[FileEntry], partial: Path) -> None:
    def bring(entry: FileEntry) -> None:
        storage.download(storage.join(place, entry.path), partial / entry.path)
        if entry.xxh3:
            records.verify_files([entry], partial)

    # The large ones first, so that none of them is alone at the end.
    ordered = sorted(entries, key=lambda entry: -entry.num_bytes)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        try:
            list(pool.map(bring, ordered))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _put_in_place(partial: Path, folder: Path) -> None:
    """Move everything up; the record goes last, for its presence means that all is there."""
    (folder / RECORD_NAME).unlink(missing_ok=True)
    paths = [path for path in partial.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: path == partial / RECORD_NAME):
        target = folder / path.relative_to(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def main() -> int:
    """Fetch what the arguments name, one pair of URI and folder after the other."""
    parser = argparse.ArgumentParser(prog="python -m serving.fetch", description=__doc__)
    parser.add_argument(
        "pairs", metavar="URI FOLDER", nargs="+", help=f"{SCHEME}bucket/prefix/ and a local folder"
    )
    pairs = parser.parse_args().pairs
    if len(pairs) % 2:
        raise ConfigError(f"{len(pairs)} arguments; expected pairs of URI and FOLDER")
    for uri, folder in zip(pairs[::2], pairs[1::2], strict=True):
        fetch(uri, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
