# SPDX-License-Identifier: Apache-2.0
"""Shard folders on S3, read without being brought to the node as a whole.

The index is read first; a shard's files are fetched into the node's `ShardCache` when they are
needed, the coming window's ahead of time by threads that follow the plan. Called by
`pyfsb.training.sources`; never decides the order.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from pyfsb import storage
from pyfsb.data.shard_cache import ShardCache
from pyfsb.data.shards import Shards, find_file, read_index
from pyfsb.errors import ConfigError, FsbError
from pyfsb.records import FileEntry
from pyfsb.storage.workspace import cache_folder

KINDS: Final = ("samples", "tokens", "words")
"""The files of a shard that every training reads; columns come on top."""
_NUM_THREADS: Final = 4
_PAUSE_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 600.0
_WINDOW_STEPS: Final = 8
"""Steps of a window at least: loaders prepare a few steps, so ranks are that far apart at most."""

_log = logging.getLogger(__name__)


class StreamedFiles:
    """The files of a shard folder on S3, through the node's cache."""

    def __init__(self, uri: str, cache: ShardCache) -> None:
        """Keep folder and cache."""
        self._uri = uri
        self._cache = cache

    def open(self, entry: FileEntry) -> BinaryIO:
        """Return a whole file, opened; it is fetched if it is not on the node."""
        return self._cache.open(storage.join(self._uri, entry.path), entry)


def open_cache(max_bytes: int | None) -> ShardCache:
    """Open the node's cache, below `FSB_CACHE`.

    `FSB_S3_PATIENCE_SECONDS` (600) is how long a store may fail before it is an error.

    Raises:
        ConfigError: That variable is not a number of seconds.
        StorageError: The folder cannot be made.
    """
    text = os.environ.get("FSB_S3_PATIENCE_SECONDS", str(_PATIENCE_SECONDS))
    try:
        patience_seconds = float(text)
    except ValueError:
        patience_seconds = -1.0
    if not patience_seconds >= 0.0:
        raise ConfigError(f"FSB_S3_PATIENCE_SECONDS={text!r}; expected a number of seconds")
    return ShardCache(
        cache_folder() / "shards", max_bytes=max_bytes, patience_seconds=patience_seconds
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedPart:
    """One corpus on S3."""

    uri: str
    """Its shard folder."""
    shards: Shards
    """Its samples."""
    columns: tuple[str, ...] = ()
    """The columns that training reads."""

    def files(self, shards: Collection[int] | NDArray[np.int64]) -> list[tuple[str, FileEntry]]:
        """Return the files of shards, in their order."""
        entries = [
            find_file(self.shards.index.shards[int(number)], kind)
            for number in shards
            for kind in (*KINDS, *self.columns)
        ]
        return [(storage.join(self.uri, entry.path), entry) for entry in entries]


def open_part(uri: str, cache: ShardCache, *, columns: Iterable[str] = ()) -> StreamedPart:
    """Open a shard folder on S3; reads its index only.

    Args:
        uri: The folder.
        cache: Where its files go.
        columns: What will be read beside ids and words.

    Raises:
        DataError: There is no index, it is of another format, or a column is not there.
        StorageError: The store failed.
    """
    shards = Shards(read_index(uri), StreamedFiles(uri, cache), uri=uri)
    shards.require(columns)
    cache.when_full(lambda: shards.release(()))
    return StreamedPart(uri=uri, shards=shards, columns=tuple(columns))


def check_room(
    parts: Sequence[StreamedPart],
    *,
    max_bytes: int | None,
    window_shards: int | None,
    held_out_samples: int,
    step_tokens: int = 0,
) -> None:
    """Refuse a cache that cannot hold two windows of each corpus and its held-out samples.

    Ranks of a node differ by some steps: windows must be larger than that, or three are in use.

    Args:
        parts: The corpora on S3.
        max_bytes: Bound of the cache. None: nothing is refused.
        window_shards: Shards of a window. None: all.
        held_out_samples: Samples at the end of each corpus that are read at other times.
        step_tokens: Tokens of a step.

    Raises:
        ConfigError: Says how many bytes, or which window, would do.
    """
    if max_bytes is None:
        return
    needed = 0
    for part in parts:
        num_shards = len(part.shards.index.shards)
        if window_shards is not None and window_shards < num_shards:
            _check_window(part, window_shards, step_tokens)
        sizes = [sum(entry.num_bytes for _, entry in part.files([n])) for n in range(num_shards)]
        # Any shards may meet in two windows, so the largest ones are counted.
        num_held = num_shards if window_shards is None else min(num_shards, 2 * window_shards)
        needed += sum(sorted(sizes)[num_shards - num_held :])
        if num_held < num_shards:
            ends = np.cumsum(part.shards.shard_samples)
            tail = int(np.searchsorted(ends, ends[-1] - held_out_samples, side="right"))
            needed += sum(sizes[tail:])
    if needed > max_bytes:
        advice = "set data.shuffle_shards" if window_shards is None else "lower data.shuffle_shards"
        raise ConfigError(
            f"data.cache_bytes = {max_bytes}: two windows of shards take up to {needed} bytes; "
            f"raise it to {needed}, or {advice}"
        )


def _check_window(part: StreamedPart, window_shards: int, step_tokens: int) -> None:
    smallest = sum(sorted(shard.num_tokens for shard in part.shards.index.shards)[:window_shards])
    if smallest < _WINDOW_STEPS * step_tokens:
        raise ConfigError(
            f"data.shuffle_shards = {window_shards}: a window of {part.uri} may hold only "
            f"{smallest} tokens; with data.cache_bytes it must hold {_WINDOW_STEPS} steps of "
            f"{step_tokens} (batch.tokens): raise data.shuffle_shards"
        )


class Prefetcher:
    """Brings the shards of the present and the next window, and lets the others go."""

    def __init__(self, parts: Sequence[StreamedPart | None], cache: ShardCache) -> None:
        """Keep the parts; threads start with the first plan.

        Args:
            parts: Every part of a blend; None for one that lies on the node.
            cache: Where the files go.
        """
        self._parts = parts
        self._cache = cache
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, FileEntry]] = deque()
        self._told: list[list[int]] = []
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def tell(
        self,
        now: Sequence[NDArray[np.int64]],
        coming: Sequence[NDArray[np.int64]],
        later: Sequence[NDArray[np.int64]],
    ) -> None:
        """Take note of which shards of each part are read now, next and later; returns at once.

        Args:
            now: For each part the shards that are being read.
            coming: Those of the next window: they are fetched.
            later: Those after it, in the order in which they are read.
        """
        told = [
            [*first.tolist(), -1, *second.tolist()]
            for first, second in zip(now, coming, strict=True)
        ]
        if told == self._told:
            return
        self._told = told
        ranks: dict[str, int] = {}
        queue: deque[tuple[str, FileEntry]] = deque()
        for number, part in enumerate(self._parts):
            if part is None:
                continue
            part.shards.release(set(now[number].tolist()))
            for place, shard in reversed(list(enumerate(later[number].tolist(), start=2))):
                ranks.update((entry.xxh3, place) for _, entry in part.files([shard]))
            for rank, shards in ((1, coming[number]), (0, now[number])):
                ranks.update((entry.xxh3, rank) for _, entry in part.files(shards))
            queue.extend(part.files(now[number]))
        for number, part in enumerate(self._parts):
            queue.extend(part.files(coming[number]) if part else ())
        self._cache.plan(ranks)
        with self._changed:
            self._queue = queue
            self._changed.notify_all()
        self._start()

    def close(self) -> None:
        """End the threads; one that is being answered by the store ends after that."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._cache.stop()
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _start(self) -> None:
        while len(self._threads) < _NUM_THREADS and not self._is_closed:
            name = f"shards-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closed)
                if self._is_closed:
                    return
                queue, (uri, entry) = self._queue, self._queue.popleft()
            try:
                is_there = self._cache.has(entry) or self._cache.fetch(uri, entry, is_urgent=False)
            except FsbError as exc:
                # Whoever reads the shard meets the error again, if it lasts.
                if not self._is_closed:
                    _log.warning("cannot prefetch: %s", exc)
                continue
            if not is_there:  # another process brings it, or there is no room yet
                with self._changed:
                    queue.append((uri, entry))
                    self._changed.wait_for(lambda: self._is_closed, timeout=_PAUSE_SECONDS)
