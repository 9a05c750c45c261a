"""Compare-and-swap: on a disk, on S3 that keeps conditions and on S3 that does not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pyfsb import storage


def swap(uri: str) -> None:
    """What holds wherever conditions are kept."""
    assert storage.read_versioned(uri) is None
    assert not storage.write_if_unchanged(uri, b"0", "some version")
    assert storage.write_if_unchanged(uri, b"1", None)
    assert not storage.write_if_unchanged(uri, b"2", None)
    found = storage.read_versioned(uri)
    assert found
    data, version = found
    assert data == b"1"
    assert storage.write_if_unchanged(uri, b"3", version)
    assert not storage.write_if_unchanged(uri, b"4", version)
    assert storage.read_bytes(uri) == b"3"


def count(uri: str, *, num_writers: int, num_times: int) -> int:
    """Let several writers add one to a number, and return it."""

    def add() -> None:
        left = num_times
        while left:
            found = storage.read_versioned(uri)
            number = int(found[0]) if found else 0
            version = found[1] if found else None
            left -= storage.write_if_unchanged(uri, str(number + 1).encode(), version)

    threads = [threading.Thread(target=add) for _ in range(num_writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(storage.read_bytes(uri))


def test_a_file_is_swapped_once(tmp_path: Path) -> None:
    swap(str(tmp_path / "a/b.json"))
    assert storage.swaps_safely(str(tmp_path))


def test_an_object_is_swapped_once(strict_s3: str) -> None:
    swap(f"{strict_s3}/a/b.json")
    assert storage.swaps_safely(strict_s3)
    assert [file.path for file in storage.list_files(strict_s3)] == ["a/b.json"]


def test_no_writer_is_lost_on_a_disk(tmp_path: Path) -> None:
    assert count(str(tmp_path / "n"), num_writers=4, num_times=10) == 40


def test_no_writer_is_lost_on_s3(strict_s3: str) -> None:
    assert count(f"{strict_s3}/n", num_writers=3, num_times=5) == 15


def test_a_store_that_ignores_conditions_is_found_out(s3: str) -> None:
    assert not storage.swaps_safely(s3)
    assert storage.list_files(s3) == []


def test_a_writer_under_way_is_a_lost_race(strict_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    def conflict(**_: object) -> None:
        error = {"Error": {"Code": "ConditionalRequestConflict"}}
        raise ClientError(error, "PutObject")  # type: ignore[arg-type]

    monkeypatch.setattr(storage._S3.client, "put_object", conflict)
    assert not storage.write_if_unchanged(f"{strict_s3}/x", b"1", None)
