# SPDX-License-Identifier: Apache-2.0
"""Token shards: what training reads, memory-mapped, any sample by its number in O(1).

A folder holds `index.json` and, for each shard, little-endian arrays without headers:

    shard-00000.tokens     uint16 (uint32 above 65,536 pieces)  ids, documents end to end
    shard-00000.words      packed bits, first token in the high bit: a whole word begins here
    shard-00000.samples    uint64  first token of each sample, then the number of tokens
    shard-00000.documents  uint64  one past the last token of each document

Samples lie end to end, never cross a document, and are numbered through all shards. The index
names sizes and xxh3 of every file. Written by `prepare`, read by training and benchmarks.

Source: our choice; a raw array needs no decoding and gives exact resume at any sample.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pyfsb import storage
from pyfsb.errors import CheckpointError, ConfigError, DataError
from pyfsb.records import FileEntry, hash_file
from pyfsb.schema import Schema, parse

NUM_SPECIAL_TOKENS: Final = 2
"""[CLS] and [SEP] around every sample; they are added by the batches, not stored."""
INDEX_NAME: Final = "index.json"
FORMAT_VERSION: Final = 1
_FEW_SAMPLES: Final = 1024
"""Up to so many, lengths are read one by one: an array operation a shard would cost more."""
_OTHER_FILES: Final = 512
"""Open files that are left to everything else."""


class ShardEntry(Schema):
    """One shard of the index."""

    name: str
    """Base name of its four files."""
    num_tokens: int
    """Tokens in it."""
    num_documents: int
    """Documents in it."""
    num_samples: int
    """Samples in it."""
    files: tuple[FileEntry, ...]
    """Its files with sizes and hashes."""


class ShardIndex(Schema):
    """The whole folder."""

    format_version: int = FORMAT_VERSION
    """Raised when the layout changes."""
    token_type: str
    """numpy name of the ids' type, little-endian."""
    max_tokens: int
    """Tokens of a sample at most, special tokens not counted."""
    vocabulary_digest: str
    """sha256 of the vocabulary the ids belong to."""
    shards: tuple[ShardEntry, ...]
    """The shards in order."""


class ShardWriter:
    """Writes documents into shards of about equal size."""

    def __init__(
        self, folder: Path, *, vocabulary_size: int, max_tokens: int, shard_tokens: int
    ) -> None:
        """Open an empty folder for writing.

        Args:
            folder: Local; made if needed.
            vocabulary_size: Decides between uint16 and uint32.
            max_tokens: Tokens of a sample at most, special tokens not counted.
            shard_tokens: A shard ends with the document that reaches this size.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_tokens = max_tokens
        self._shard_tokens = shard_tokens
        self._token_type = np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")
        self._entries: list[ShardEntry] = []
        self._clear()

    def add(
        self, ids: NDArray[np.integer], words: NDArray[np.bool_], sample_starts: Iterable[int]
    ) -> None:
        """Append one document.

        Args:
            ids: Token ids, shape [T]; T is at least 1.
            words: Word bits, shape [T].
            sample_starts: Where its samples begin, the first at 0.
        """
        self._ids.append(ids.astype(self._token_type))
        self._words.append(words)
        self._samples += [self._num_tokens + start for start in sample_starts]
        self._num_tokens += ids.size
        self._documents.append(self._num_tokens)
        if self._num_tokens >= self._shard_tokens:
            self._flush()

    def close(self, vocabulary_digest: str) -> ShardIndex:
        """Write what is left and the index; returns the index.

        Raises:
            DataError: No document was added.
        """
        self._flush()
        if not self._entries:
            raise DataError("the corpus is empty: no document is left after filtering")
        index = ShardIndex(
            token_type=self._token_type.name,
            max_tokens=self._max_tokens,
            vocabulary_digest=vocabulary_digest,
            shards=tuple(self._entries),
        )
        text = json.dumps(index.to_json(), indent=2) + "\n"
        storage.write_text(str(self._folder / INDEX_NAME), text)
        return index

    def _clear(self) -> None:
        self._ids: list[NDArray[np.integer]] = []
        self._words: list[NDArray[np.bool_]] = []
        self._samples: list[int] = []
        self._documents: list[int] = []
        self._num_tokens = 0

    def _flush(self) -> None:
        if not self._num_tokens:
            return
        name = f"shard-{len(self._entries):05d}"
        arrays = {
            "tokens": np.concatenate(self._ids),
            "words": np.packbits(np.concatenate(self._words)),
            "samples": np.array([*self._samples, self._num_tokens], dtype="<u8"),
            "documents": np.array(self._documents, dtype="<u8"),
        }
        files = []
        for kind, array in arrays.items():
            path = self._folder / f"{name}.{kind}"
            storage.write_bytes(str(path), array.tobytes())
            files.append(FileEntry(path=path.name, num_bytes=array.nbytes, xxh3=hash_file(path)))
        entry = ShardEntry(
            name=name,
            num_tokens=self._num_tokens,
            num_documents=len(self._documents),
            num_samples=len(self._samples),
            files=tuple(files),
        )
        self._entries.append(entry)
        self._clear()


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

    def __init__(self, index: ShardIndex, files: ShardFiles) -> None:
        """Keep the index; use `Shards.open` for a local folder.

        Args:
            index: Of the folder.
            files: Opens its files; threads may call it at the same time.
        """
        self.index = index
        self._files = files
        self._token_type = np.dtype(index.token_type).newbyteorder("<")
        self.shard_samples = np.array([s.num_samples for s in index.shards], dtype=np.int64)
        """Samples of each shard."""
        self._first_samples = np.concatenate(([0], np.cumsum(self.shard_samples)))
        self._lock = threading.Lock()
        self._maps: OrderedDict[tuple[str, int], NDArray[np.integer]] = OrderedDict()
        self._max_maps = _allow_open_files(3 * len(index.shards))

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
        return cls(index, _FolderFiles(folder))

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
        bits = np.unpackbits(np.concatenate(word_parts)).view(np.bool_)
        # Of the bits of a sample's bytes, those before and after the sample go.
        lengths, before, after = stops - starts, starts & 7, -stops & 7
        is_own = np.tile(np.array([False, True, False]), sample_ids.size)
        is_own = np.repeat(is_own, np.stack([before, lengths, after], axis=1).reshape(-1))
        return np.concatenate(parts), bits[is_own], lengths

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
        types = {"tokens": self._token_type, "words": np.dtype("u1"), "samples": np.dtype("<i8")}
        with self._files.open(find_file(self.index.shards[shard], kind)) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype=types[kind])


def find_file(shard: ShardEntry, kind: str) -> FileEntry:
    """Return the entry of a shard's tokens, words, samples or documents.

    Raises:
        DataError: The index names no such file.
    """
    name = f"{shard.name}.{kind}"
    for entry in shard.files:
        if entry.path == name:
            return entry
    raise DataError(f"the index of the shards names no file {name}; prepare the data again")


def read_index(uri: str) -> ShardIndex:
    """Return the index of a shard folder, local or on S3.

    Raises:
        DataError: There is none, or it is of another format.
    """
    path = storage.join(uri, INDEX_NAME)
    try:
        index = parse(ShardIndex, json.loads(storage.read_text(path)), source=path)
    except (ValueError, ConfigError) as exc:
        raise DataError(f"{path} is not an index of shards: {exc}") from None
    if index.format_version != FORMAT_VERSION:
        raise DataError(
            f"{uri}: shard format {index.format_version}, this version reads "
            f"{FORMAT_VERSION}; prepare the data again"
        )
    return index


def check_vocabulary(index: ShardIndex, expected: str, *, owner: str) -> None:
    """Refuse shards whose ids belong to another vocabulary.

    Raises:
        CheckpointError: Names both digests.
    """
    if index.vocabulary_digest != expected:
        raise CheckpointError(
            f"the shards were made with vocabulary {index.vocabulary_digest}, {owner} has "
            f"{expected}; prepare the data with data.vocabulary.file set to that one's vocab.txt"
        )


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
