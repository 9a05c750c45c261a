# SPDX-License-Identifier: Apache-2.0
"""Token shards: what training reads, memory-mapped, any sample by its number in O(1).

A folder holds `index.json` and, for each shard, little-endian arrays without headers:

    shard-00000.tokens     uint16 (uint32 above 65,536 pieces)  ids, documents end to end
    shard-00000.words      packed bits, first token in the high bit: a whole word begins here
    shard-00000.samples    uint64  first token of each sample, then the number of tokens
    shard-00000.documents  uint64  one past the last token of each document

and of the columns that the index names:

    shard-00000.sentences  packed bits: a sentence begins here
    shard-00000.gaps       packed bits: this token is of a gap sentence (Pegasus)
    shard-00000.knowledge  uint8: how much this token's word means, 1 to 255

Samples lie end to end and are numbered through all shards; none crosses a document, but where
documents are joined (`data.concatenate`). The index names sizes and xxh3 of every file. Written by
`prepare`, read by training and benchmarks.

Source: our choice; a raw array needs no decoding and gives exact resume at any sample.
"""

from __future__ import annotations

import mmap
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pyfsb.data.shard_index import (
    FORMAT_VERSION,
    INDEX_NAME,
    NUM_SPECIAL_TOKENS,
    Column,
    ShardEntry,
    ShardIndex,
    check_vocabulary,
    find_file,
    read_index,
)
from pyfsb.data.shard_writer import ShardWriter
from pyfsb.errors import DataError
from pyfsb.records import FileEntry, hash_file

__all__ = [
    "FORMAT_VERSION",
    "INDEX_NAME",
    "NUM_SPECIAL_TOKENS",
    "Column",
    "ShardEntry",
    "ShardFiles",
    "ShardIndex",
    "ShardWriter",
    "Shards",
    "check_vocabulary",
    "find_file",
    "read_index",
]

_FEW_SAMPLES: Final = 1024
"""Up to so many, lengths are read one by one: an array operation a shard would cost more."""
_OTHER_FILES: Final = 512
"""Open files that are left to everything else."""


class ShardFiles(Protocol):
    """Where the files of a shard folder are opened: a folder, or a cache of one on S3."""

    def open(self, entry: FileEntry) -> BinaryIO:
        """Return a whole file, opened; it stays usable as long as it is open or mapped."""


class _FolderFiles:
    """The files of a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, entry: FileEntry) -> BinaryIO:
        try:
            return (self._folder / entry.path).open("rb")
        except OSError as exc:
            raise DataError(f"{self._folder / entry.path}: {exc.strerror or exc}") from exc


class Shards:
    """Random access to the samples of a shard folder; a file is mapped when it is first read."""

    def __init__(self, index: ShardIndex, files: ShardFiles, *, uri: str = "the folder") -> None:
        """Keep the index; use `Shards.open` for a local folder.

        Args:
            index: Of the folder.
            files: Opens its files; threads may call it at the same time.
            uri: The folder, for messages.
        """
        self.index = index
        self._uri = uri
        self._files = files
        self._token_type = np.dtype(index.token_type).newbyteorder("<")
        self.shard_samples = np.array([s.num_samples for s in index.shards], dtype=np.int64)
        """Samples of each shard."""
        self._first_samples = np.concatenate(([0], np.cumsum(self.shard_samples)))
        self._lock = threading.Lock()
        self._maps: OrderedDict[tuple[str, int], NDArray[np.integer]] = OrderedDict()
        self._max_maps = _allow_open_files((3 + len(index.columns)) * len(index.shards))

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> Self:
        """Open a shard folder.

        Args:
            folder: Local folder with an index.
            verify: Also compare every file's hash (reads everything once).

        Raises:
            DataError: There is no index, or a file is missing or has another size or hash.
        """
        index = read_index(str(folder))
        with os.scandir(folder) as found:  # one listing: folders hold tens of thousands of files
            sizes = {file.name: file.stat().st_size for file in found if file.is_file()}
        for entry in (file for shard in index.shards for file in shard.files):
            size = sizes.get(entry.path)
            if size != entry.num_bytes or (verify and hash_file(folder / entry.path) != entry.xxh3):
                raise DataError(
                    f"{folder / entry.path} "
                    f"{'is missing' if size is None else 'differs from the index'} "
                    f"(expected {entry.num_bytes} bytes, xxh3 {entry.xxh3})"
                )
        return cls(index, _FolderFiles(folder), uri=str(folder))

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._first_samples[-1])

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples."""
        return sum(shard.num_tokens for shard in self.index.shards)

    def lengths_of(self, sample_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tokens of samples.

        Raises:
            IndexError: There is no such sample.
        """
        shards, rows = self._places(sample_ids)
        if sample_ids.size <= _FEW_SAMPLES:
            bounds = {shard: self._map("samples", shard) for shard in set(shards.tolist())}
            found = [
                bounds[shard].item(row + 1) - bounds[shard].item(row)
                for shard, row in zip(shards.tolist(), rows.tolist(), strict=True)
            ]
            return np.array(found, dtype=np.int64)
        order = np.argsort(shards, kind="stable")
        edges = np.flatnonzero(np.diff(shards[order], prepend=-1, append=-1)).tolist()
        lengths = np.empty_like(rows)
        for first, last in pairwise(edges):
            mine = order[first:last]
            edge = self._map("samples", int(shards[mine[0]]))
            lengths[mine] = edge[rows[mine] + 1] - edge[rows[mine]]
        return lengths

    def read(self, sample: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Return ids and word bits of one sample, each of its own length.

        Raises:
            IndexError: There is no such sample.
        """
        ids, words, _ = self.read_many(np.array([sample]))
        return ids, words

    def read_many(
        self, sample_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.integer], NDArray[np.bool_], NDArray[np.int64]]:
        """Return ids and word bits of samples end to end, and the tokens of each sample.

        Raises:
            IndexError: There is no such sample.
        """
        if not sample_ids.size:
            empty = np.empty(0, dtype=np.int64)
            return empty.astype(self._token_type), empty.astype(np.bool_), empty
        shards, rows = self._places(sample_ids)
        opened = {
            shard: [self._map(kind, shard) for kind in ("tokens", "words", "samples")]
            for shard in set(shards.tolist())
        }
        # A slice a sample and one copy is the speed of memory; an index a token is three times
        # slower.
        parts: list[NDArray[np.integer]] = []
        word_parts: list[NDArray[np.integer]] = []
        edges: list[tuple[int, int]] = []
        for shard, row in zip(shards.tolist(), rows.tolist(), strict=True):
            tokens, words, bounds = opened[shard]
            start, stop = bounds.item(row), bounds.item(row + 1)
            parts.append(tokens[start:stop])
            word_parts.append(words[start >> 3 : (stop + 7) >> 3])
            edges.append((start, stop))
        starts, stops = np.array(edges, dtype=np.int64).T
        bits = _unpack(word_parts, starts, stops)
        return np.concatenate(parts), bits, stops - starts

    def read_columns(
        self, sample_ids: NDArray[np.int64], columns: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Return columns of samples end to end: booleans, of `knowledge` uint8.

        Raises:
            DataError: The folder has no such column.
            IndexError: There is no such sample.
        """
        self.require(columns)
        shards, rows = self._places(sample_ids)
        found: dict[str, NDArray[Any]] = {}
        for column in columns:
            is_packed = column != "knowledge"
            opened = {
                shard: (self._map(column, shard), self._map("samples", shard))
                for shard in set(shards.tolist())
            }
            parts: list[NDArray[np.integer]] = [np.empty(0, dtype=np.uint8)]
            edges: list[tuple[int, int]] = []
            for shard, row in zip(shards.tolist(), rows.tolist(), strict=True):
                values, bounds = opened[shard]
                start, stop = bounds.item(row), bounds.item(row + 1)
                edges.append((start, stop))
                own = slice(start >> 3, (stop + 7) >> 3) if is_packed else slice(start, stop)
                parts.append(values[own])
            starts, stops = np.array(edges, dtype=np.int64).reshape(-1, 2).T
            found[column] = _unpack(parts, starts, stops) if is_packed else np.concatenate(parts)
        return found

    def require(self, columns: Iterable[str]) -> None:
        """Make sure that the folder holds columns.

        Raises:
            DataError: Names the folder, the column, and how to get it.
        """
        for column in columns:
            if column in self.index.columns:
                continue
            advice = "" if column == "sentences" else f"with data.columns: [{column}] "
            raise DataError(
                f"{self._uri} holds no column {column!r} (it has: "
                f"{', '.join(self.index.columns) or 'none'}), and the objective needs it; prepare "
                f"the data again {advice}into a new output folder"
            )

    def release(self, keep: Collection[int]) -> None:
        """Close the maps of all shards but some; a closed one is mapped anew when it is read."""
        with self._lock:
            for key in [key for key in self._maps if key[1] not in keep]:
                del self._maps[key]

    def _places(self, sample_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the shard of each sample and its number in it."""
        is_wrong = (sample_ids < 0) | (sample_ids >= len(self))
        if is_wrong.any():
            raise IndexError(f"sample {sample_ids[is_wrong][0]} of {len(self)}")
        shards = np.searchsorted(self._first_samples, sample_ids, side="right") - 1
        return shards, sample_ids - self._first_samples[shards]

    def _map(self, kind: str, shard: int) -> NDArray[np.integer]:
        """Return a file of a shard as an array; the ones used least lately are closed."""
        key = (kind, shard)
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
        array = self._open(kind, shard)  # may take long, others go on
        with self._lock:
            self._maps[key] = array
            while len(self._maps) > self._max_maps:
                self._maps.popitem(last=False)
        return array

    def _open(self, kind: str, shard: int) -> NDArray[np.integer]:
        types = {"tokens": self._token_type, "samples": np.dtype("<i8")}
        with self._files.open(find_file(self.index.shards[shard], kind)) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype=types.get(kind, np.dtype("u1")))


def _unpack(
    parts: list[NDArray[np.integer]], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return the bits of samples of the bytes that hold them; those before and after go."""
    bits = np.unpackbits(np.concatenate(parts)).view(np.bool_)
    is_own = np.tile(np.array([False, True, False]), starts.size)
    edges = np.stack([starts & 7, stops - starts, -stops & 7], axis=1)
    own: NDArray[np.bool_] = bits[np.repeat(is_own, edges.reshape(-1))]
    return own


def _allow_open_files(num_files: int) -> int:
    """Raise this process' limit of open files for so many maps; return how many it may keep.

    A map holds its file open; the limit that a shell or container starts with is often 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_files + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return num_files if soft == resource.RLIM_INFINITY else max(16, soft - _OTHER_FILES)
