from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pyfsb import storage
from pyfsb.errors import DataError, StorageError
from pyfsb.storage.workspace import Workspace


def test_what_was_written_is_read(tmp_path: Path) -> None:
    uri = str(tmp_path / "a/b/c.txt")
    storage.write_text(uri, "文字")
    assert storage.read_text(uri) == "文字"
    assert storage.exists(uri)
    assert not storage.exists(str(tmp_path / "a/b"))
    assert storage.size(uri) == 6


def test_files_are_listed_below_a_folder(tmp_path: Path) -> None:
    for name in ("b/2", "a/1", "c"):
        storage.write_bytes(str(tmp_path / name), b"xx")
    listed = storage.list_files(str(tmp_path))
    assert [(file.path, file.num_bytes) for file in listed] == [("a/1", 2), ("b/2", 2), ("c", 2)]
    assert storage.list_files(str(tmp_path / "nothing")) == []


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), storage.replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_missing_file_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nothing: no such file"):
        storage.read_bytes(str(tmp_path / "nothing"))


def test_text_must_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match="not UTF-8 at byte 2"):
        storage.read_text(str(tmp_path / "x"))


def test_a_full_disk_is_told_with_its_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk full: cannot write .*x, [\d.]+ MiB free"):
        storage.write_bytes(str(tmp_path / "x"), b"1")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_for_writes_that_know_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(
            StorageError, match=rf"disk full: cannot write to {tmp_path}, [\d.]+ MiB free"
        ),
        storage.explaining_full_disk(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), storage.explaining_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_writing_only_what_is_absent(tmp_path: Path) -> None:
    uri = str(tmp_path / "x")
    assert storage.write_if_absent(uri, b"1")
    assert not storage.write_if_absent(uri, b"2")
    assert storage.read_bytes(uri) == b"1"


def test_deleting_twice_is_fine(tmp_path: Path) -> None:
    uri = str(tmp_path / "x")
    storage.write_bytes(uri, b"1")
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_a_local_workspace_is_the_folder_itself(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    assert workspace.path == tmp_path
    assert workspace.pull() == tmp_path
    workspace.push([tmp_path])
