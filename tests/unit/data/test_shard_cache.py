from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from pyfsb import storage
from pyfsb.errors import DataError, StorageError
from tests.unit.data.test_streaming import files_of, open_small, put


def test_files_are_removed_to_make_room_least_lately_used_first(tmp_path: Path) -> None:
    cache = open_small(tmp_path / "cache", 250)
    files = [put(tmp_path / "store", name, 100) for name in "abc"]
    for age, (uri, entry) in enumerate(files[:2]):
        cache.open(uri, entry).close()
        os.utime(tmp_path / "cache" / entry.xxh3, (1000 + age, 1000 + age))
    cache.open(*files[0]).close()  # used again
    cache.open(*files[2]).close()
    assert files_of(tmp_path / "cache") == {files[0][1].xxh3, files[2][1].xxh3}


def test_what_the_plan_needs_last_goes_first_and_the_next_window_stays(tmp_path: Path) -> None:
    cache = open_small(tmp_path / "cache", 420)
    files = {name: put(tmp_path / "store", name, 100) for name in "abcdxyz"}
    for name in "abcx":
        assert cache.fetch(*files[name], is_urgent=False)
    digests = {name: entry.xxh3 for name, (_, entry) in files.items()}
    cache.plan({digests["a"]: 5, digests["b"]: 9, digests["c"]: 1, digests["d"]: 0})
    kept = {digests[name] for name in "abcx"}
    for newcomer, leaver in (("d", "x"), ("y", "b"), ("z", "y")):
        assert cache.fetch(*files[newcomer], is_urgent=False)
        kept = kept - {digests[leaver]} | {digests[newcomer]}
        assert files_of(tmp_path / "cache") == kept
        if newcomer == "y":
            cache.plan({digests["a"]: 5, digests["c"]: 1, digests["d"]: 0})


def test_prefetching_takes_no_room_from_the_next_window_but_reading_does(tmp_path: Path) -> None:
    cache = open_small(tmp_path / "cache", 200)
    now, coming, other = (put(tmp_path / "store", name, 100) for name in "abc")
    cache.plan({now[1].xxh3: 0, coming[1].xxh3: 1})
    assert cache.fetch(*now, is_urgent=False)
    assert cache.fetch(*coming, is_urgent=False)
    assert not cache.fetch(*other, is_urgent=False)
    assert files_of(tmp_path / "cache") == {now[1].xxh3, coming[1].xxh3}
    cache.open(*other).close()
    assert files_of(tmp_path / "cache") == {now[1].xxh3, other[1].xxh3}


def test_a_read_goes_on_when_more_is_needed_now_than_there_is_room_for(tmp_path: Path) -> None:
    cache = open_small(tmp_path / "cache", 200, patience_seconds=0.3)
    files = [put(tmp_path / "store", name, 100) for name in "abc"]
    cache.plan({entry.xxh3: 0 for _, entry in files})
    for file in [*files, *files]:
        cache.open(*file).close()
    assert len(files_of(tmp_path / "cache")) == 2


def test_a_file_in_use_is_never_removed(tmp_path: Path) -> None:
    cache = open_small(tmp_path / "cache", 100, patience_seconds=0.3)
    first, second = (put(tmp_path / "store", name, 100) for name in "ab")
    with cache.open(*first) as file:
        with pytest.raises(StorageError, match=r"no room for a shard of 100 bytes .*cache_bytes"):
            cache.open(*second)
        assert files_of(tmp_path / "cache") == {first[1].xxh3}
        assert file.read() == b"a" * 100
    cache.open(*second).close()
    assert files_of(tmp_path / "cache") == {second[1].xxh3}


def test_a_failing_store_is_tried_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real, left = put(tmp_path / "store", "a", 10), storage.download, [3]

    def fail(uri: str, path: Path) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise StorageError("the store answered 503")
        real(uri, path)

    monkeypatch.setattr(storage, "download", fail)
    monkeypatch.setattr("pyfsb.data.shard_cache._FIRST_PAUSE_SECONDS", 0.01)
    open_small(tmp_path / "cache").open(*file).close()
    assert left == [-1]
    left[0] = 10**6
    with pytest.raises(StorageError, match="answered 503"):
        open_small(tmp_path / "other", patience_seconds=0.1).open(*file)
    assert left[0] < 10**6 - 1
    assert files_of(tmp_path / "other") == set()


def test_a_damaged_download_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real, num_damaged = put(tmp_path / "store", "a", 10), storage.download, [1]

    def damage(uri: str, path: Path) -> None:
        real(uri, path)
        num_damaged[0] -= 1
        if num_damaged[0] >= 0:
            path.write_bytes(b"b" + path.read_bytes()[1:])

    monkeypatch.setattr(storage, "download", damage)
    monkeypatch.setattr("pyfsb.data.shard_cache._FIRST_PAUSE_SECONDS", 0.01)
    with open_small(tmp_path / "cache").open(*file) as opened:
        assert opened.read() == b"a" * 10
    num_damaged[0] = 10**6
    with pytest.raises(DataError, match=r"store/a differs from the index \(expected 10 bytes"):
        open_small(tmp_path / "other").open(*file)
    assert num_damaged[0] == 10**6 - 3
    assert files_of(tmp_path / "other") == set()


def test_a_missing_shard_is_no_reason_to_wait(tmp_path: Path) -> None:
    uri, entry = put(tmp_path / "store", "a", 10)
    Path(uri).unlink()
    with pytest.raises(DataError, match="no such file"):
        open_small(tmp_path / "cache", patience_seconds=100).open(uri, entry)


def test_a_full_disk_is_a_clear_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(tmp_path / "store", "a", 1000)

    def fill(uri: str, path: Path) -> None:
        raise storage.explain_os_error(
            OSError(errno.ENOSPC, "no space"), str(path), "write"
        ) from OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "download", fill)
        with pytest.raises(StorageError, match=r"disk full: a shard of 1000 bytes .*cache_bytes"):
            open_small(tmp_path / "cache", patience_seconds=100).open(*file)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for max_bytes in (None, 5000):
        with pytest.raises(StorageError, match=r"disk full: .* \(10 bytes free\)"):
            open_small(tmp_path / "cache", max_bytes, patience_seconds=100).open(*file)
    assert files_of(tmp_path / "cache") == set()


def test_what_a_dead_process_left_is_cleared(tmp_path: Path) -> None:
    cache = open_small(tmp_path / "cache", 150)
    dead, alive = (put(tmp_path / "store", name, 100)[1] for name in "ab")
    for name in (f".room-{dead.xxh3}", f".part-{dead.xxh3}", f"..part-{dead.xxh3}.x1"):
        (tmp_path / "cache" / name).write_bytes(b"x" * 100)
    cache.open(str(tmp_path / "store/b"), alive).close()
    assert files_of(tmp_path / "cache") == {alive.xxh3}
