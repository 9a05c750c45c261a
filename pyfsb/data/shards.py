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
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

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


class Shards:
    """Random access to the samples of a shard folder."""

    def __init__(self, folder: Path, index: ShardIndex) -> None:
        """Map the files of an index; use `Shards.open`."""
        self.index = index
        tokens_type = np.dtype(index.token_type).newbyteorder("<")
        self._tokens = [_map(folder / f"{s.name}.tokens", tokens_type) for s in index.shards]
        self._words = [
            _map(folder / f"{s.name}.words", np.dtype("u1")).view(np.uint8) for s in index.shards
        ]
        bounds = [_map(folder / f"{s.name}.samples", np.dtype("<u8")) for s in index.shards]
        self._bounds = bounds
        self._first_samples = np.cumsum([0, *(s.num_samples for s in index.shards)])
        self.lengths = np.concatenate([np.diff(b.astype(np.int64)) for b in bounds])

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> Self:
        """Open a shard folder.

        Args:
            folder: Local folder with an index.
            verify: Also compare every file's hash (reads everything once).

        Raises:
            DataError: There is no index, or a file is missing or has another size or hash.
        """
        path = folder / INDEX_NAME
        try:
            index = parse(ShardIndex, json.loads(storage.read_text(str(path))), source=str(path))
        except (ValueError, ConfigError) as exc:
            raise DataError(f"{path} is not an index of shards: {exc}") from None
        if index.format_version != FORMAT_VERSION:
            raise DataError(
                f"{folder}: shard format {index.format_version}, this version reads "
                f"{FORMAT_VERSION}; prepare the data again"
            )
        for entry in (file for shard in index.shards for file in shard.files):
            path = folder / entry.path
            size = path.stat().st_size if path.is_file() else -1
            if size != entry.num_bytes or (verify and hash_file(path) != entry.xxh3):
                raise DataError(
                    f"{path} {'is missing' if size < 0 else 'differs from the index'} "
                    f"(expected {entry.num_bytes} bytes, xxh3 {entry.xxh3})"
                )
        return cls(folder, index)

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._first_samples[-1])

    def read(self, sample: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Return ids and word bits of one sample, each of its own length.

        Raises:
            IndexError: There is no such sample.
        """
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        shard = int(np.searchsorted(self._first_samples, sample, side="right")) - 1
        row = sample - int(self._first_samples[shard])
        start, stop = (int(edge) for edge in self._bounds[shard][row : row + 2])
        bits = np.unpackbits(self._words[shard][start // 8 : (stop + 7) // 8])
        first_bit = start % 8
        words = bits[first_bit : first_bit + stop - start].astype(np.bool_)
        return self._tokens[shard][start:stop], words


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


def _map(path: Path, dtype: np.dtype[np.generic]) -> NDArray[np.integer]:
    return np.memmap(path, dtype=dtype, mode="r")
