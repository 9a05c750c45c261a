from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyfsb import storage
from pyfsb.data.shard_cache import ShardCache
from pyfsb.data.shards import Shards, ShardWriter
from pyfsb.data.streaming import Prefetcher, StreamedPart, check_room, open_cache, open_part
from pyfsb.errors import ConfigError, DataError, StorageError
from pyfsb.records import FileEntry, hash_bytes
from tests.conftest import ROOT

Download = Callable[[str, Path], None]


def write_shards(folder: Path, num_shards: int = 6) -> Shards:
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder, vocabulary_size=1000, max_tokens=20, shard_tokens=200)
    for number in range(
        num_shards
    ):  # no two shards are equal in any file: equal ones are kept once
        starts = [0, 20 - number, *range(40, 200, 20)]
        writer.add(rng.integers(0, 1000, 200), rng.random(200) < 0.5, starts)
    writer.close("sha256:v")
    return Shards.open(folder)


def put(folder: Path, name: str, num_bytes: int) -> tuple[str, FileEntry]:
    """Put a file into a folder that stands for a store."""
    data = (name.encode() * num_bytes)[:num_bytes]
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return str(folder / name), FileEntry(path=name, num_bytes=num_bytes, xxh3=hash_bytes(data))


def open_small(
    folder: Path, max_bytes: int | None = None, patience_seconds: float = 5
) -> ShardCache:
    return ShardCache(folder, max_bytes=max_bytes, patience_seconds=patience_seconds)


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def log_downloads(monkeypatch: pytest.MonkeyPatch, wrapped: Download | None = None) -> list[str]:
    """Note what is downloaded by which thread, as THREAD FILE."""
    noted: list[str] = []
    real = wrapped or storage.download

    def download(uri: str, path: Path) -> None:
        noted.append(f"{threading.current_thread().name} {Path(uri).name}")
        real(uri, path)

    monkeypatch.setattr(storage, "download", download)
    return noted


def test_a_cold_corpus_on_s3_is_read_shard_by_shard(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = write_shards(tmp_path / "local")
    for path in (tmp_path / "local").iterdir():
        storage.upload(path, storage.join(s3, path.name))
    noted = log_downloads(monkeypatch)
    cache = open_cache(None)
    part = open_part(s3, cache)
    assert noted == []
    assert part.shards.lengths_of(np.array([0])).tolist() == [20]
    assert len(noted) == 1
    chosen = np.array([25, 3, 22])
    for mine, theirs in zip(part.shards.read_many(chosen), local.read_many(chosen), strict=True):
        assert np.array_equal(mine, theirs)
    assert {name.split()[1] for name in noted} == {
        f"shard-0000{shard}.{kind}" for shard in (0, 2) for kind in ("samples", "tokens", "words")
    }
    again = open_part(s3, open_cache(None))
    again.shards.read_many(chosen)
    assert len(noted) == 6  # a second process finds them
    assert Path(os.environ["FSB_CACHE"]) / "shards" == cache._folder


def test_columns_come_from_s3_and_are_planned_for(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(
        tmp_path / "local", vocabulary_size=9, max_tokens=20, shard_tokens=100,
        columns=["sentences", "knowledge"],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(4):
        bits, values = rng.random(100) < 0.2, rng.integers(0, 256, 100).astype(np.uint8)
        writer.add(
            rng.integers(0, 9, 100), bits, range(0, 100, 20),
            columns={"sentences": bits, "knowledge": values},
        )  # fmt: skip
    writer.close("sha256:v")
    for path in (tmp_path / "local").iterdir():
        storage.upload(path, storage.join(s3, path.name))
    noted = log_downloads(monkeypatch)
    names = ["sentences", "knowledge"]
    part = open_part(s3, open_cache(None), columns=names)
    assert [Path(uri).name for uri, _ in part.files([2])] == [
        f"shard-00002.{kind}" for kind in ("samples", "tokens", "words", *names)
    ]
    chosen = np.array([3, 17, 4])
    local = Shards.open(tmp_path / "local").read_columns(chosen, names)
    for name, values in part.shards.read_columns(chosen, names).items():
        assert np.array_equal(values, local[name])
    assert {name.split(".")[-1] for name in noted} == {"samples", *names}
    plain = open_part(s3, open_cache(None))
    assert len(plain.files([0])) == 3
    with pytest.raises(DataError, match=f"{s3} holds no column 'gaps'"):
        open_part(s3, open_cache(None), columns=["gaps"])


def test_a_missing_index_is_named(s3: str) -> None:
    with pytest.raises(DataError, match="index.json"):
        open_part(s3, open_cache(None))


def test_a_mapped_shard_is_in_use_until_it_is_released(tmp_path: Path) -> None:
    write_shards(tmp_path / "store", 3)
    one_shard = sum(path.stat().st_size for path in (tmp_path / "store").glob("shard-00000.[stw]*"))
    cache = open_small(tmp_path / "cache", 2 * one_shard, patience_seconds=0.3)
    part = open_part(str(tmp_path / "store"), cache)
    first = part.shards.read(0)[0].tolist()
    other = open_small(tmp_path / "cache", 2 * one_shard, patience_seconds=0.3)
    elsewhere = open_part(str(tmp_path / "store"), other)
    elsewhere.shards.read(10)
    with pytest.raises(StorageError, match="no room"):  # what another process maps stays
        elsewhere.shards.read_many(np.array([10, 20]))
    part.shards.release(())
    elsewhere.shards.read(20)  # what this process maps and does not read just now goes
    elsewhere.shards.read(10)
    elsewhere.shards.read(0)
    elsewhere.shards.release(())
    assert part.shards.read(0)[0].tolist() == first


def test_the_patience_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSB_CACHE", str(tmp_path))
    monkeypatch.setenv("FSB_S3_PATIENCE_SECONDS", "90.5")
    assert open_cache(None)._patience_seconds == 90.5
    for wrong in ("soon", "-1", "nan"):
        monkeypatch.setenv("FSB_S3_PATIENCE_SECONDS", wrong)
        with pytest.raises(ConfigError, match=f"FSB_S3_PATIENCE_SECONDS='{wrong}'"):
            open_cache(None)


WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from pyfsb import storage
from pyfsb.data.shard_cache import ShardCache
from pyfsb.data.streaming import open_part

store, cache, log, order = sys.argv[1:]
real = storage.download
def download(uri, path):
    with open(log, "a") as file:
        file.write(Path(uri).name + chr(10))
    time.sleep(0.02)
    real(uri, path)
storage.download = download
print("ready", flush=True)
sys.stdin.readline()
part = open_part(store, ShardCache(Path(cache), max_bytes=None, patience_seconds=60))
ids = np.arange(len(part.shards))
tokens = part.shards.read_many(ids if order == "up" else ids[::-1])[0]
print(int(tokens.sum()))
"""


def test_two_processes_fetch_every_file_once(tmp_path: Path) -> None:
    local = write_shards(tmp_path / "store")
    log = tmp_path / "log"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "store"), str(tmp_path / "cache"),
             str(log), order],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for order in ("up", "down")
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    answers = []
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        answers.append(int(worker.communicate(timeout=60)[0]))
        assert worker.returncode == 0
    assert answers == [int(local.read_many(np.arange(len(local)))[0].sum())] * 2
    fetched = log.read_text().split()
    assert len(fetched) == len(set(fetched)) == 3 * 6


def test_the_coming_window_is_brought_while_this_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow store: what is announced comes by threads, and reading it then waits for nothing."""
    write_shards(tmp_path / "store")
    real = storage.download

    def slow(uri: str, path: Path) -> None:
        time.sleep(0.02)
        real(uri, path)

    noted = log_downloads(monkeypatch, slow)
    cache = open_small(tmp_path / "cache")
    part = open_part(str(tmp_path / "store"), cache)
    prefetcher = Prefetcher([part], cache)
    now, coming, later = np.array([0, 1]), np.array([2, 3]), np.array([4, 5])
    try:
        prefetcher.tell([now], [coming], [later])
        part.shards.read_many(np.arange(20))
        deadline = time.monotonic() + 20
        while not all(cache.has(entry) for _, entry in part.files(coming)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        num_before = len(noted)
        prefetcher.tell([coming], [later], [now])
        part.shards.read_many(np.arange(20, 40))
        assert not [name for name in noted[num_before:] if name.startswith("MainThread")]
        assert {shard for _, shard in part.shards._maps} == {2, 3}
    finally:
        prefetcher.close()
    assert not [thread for thread in prefetcher._threads if thread.is_alive()]
    assert len(noted) == len(set(name.split()[1] for name in noted))


def test_a_shard_that_cannot_be_prefetched_fails_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(tmp_path / "store", 2)
    (tmp_path / "store/shard-00001.tokens").unlink()
    cache = open_small(tmp_path / "cache")
    part = open_part(str(tmp_path / "store"), cache)
    prefetcher = Prefetcher([part], cache)
    prefetcher.tell([np.array([0])], [np.array([1])], [np.empty(0, dtype=np.int64)])
    deadline = time.monotonic() + 20
    while "cannot prefetch" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert part.shards.read(0)[0].size == 20
    with pytest.raises(DataError, match="no such file"):
        part.shards.read(10)
    prefetcher.close()


def test_a_cache_too_small_for_two_windows_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "store")
    part = StreamedPart(uri=str(tmp_path / "store"), shards=shards)
    one_shard = sum(entry.num_bytes for _, entry in part.files([0]))
    for window_shards, held_out, num_needed in (
        (1, 0, 2), (2, 0, 4), (1, 3, 3), (None, 0, 6), (5, 0, 6)
    ):  # fmt: skip
        needed = num_needed * one_shard

        def check(
            max_bytes: int | None, shards: int | None = window_shards, held: int = held_out
        ) -> None:
            check_room([part], max_bytes=max_bytes, window_shards=shards, held_out_samples=held)

        check(needed)
        check(None)
        with pytest.raises(
            ConfigError, match=f"cache_bytes = {needed - 1}: .* raise it to {needed}"
        ):
            check(needed - 1)


def test_a_window_shorter_than_some_steps_is_refused_in_a_bounded_cache(tmp_path: Path) -> None:
    part = StreamedPart(uri="s3://b/news", shards=write_shards(tmp_path / "store"))

    def check(step_tokens: int, max_bytes: int | None = 10**9, window_shards: int = 3) -> None:
        check_room(
            [part], max_bytes=max_bytes, window_shards=window_shards, held_out_samples=0,
            step_tokens=step_tokens,
        )  # fmt: skip

    check(75)
    check(76, max_bytes=None)
    check(76, window_shards=6)
    with pytest.raises(
        ConfigError, match=r"shuffle_shards = 3: a window of s3://b/news .* 600 tok"
    ):
        check(76)
