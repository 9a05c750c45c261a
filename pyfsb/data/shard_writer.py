# SPDX-License-Identifier: Apache-2.0
"""Writes token shards; their layout is told in `shards`. Called by the data stage and by tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyfsb import storage
from pyfsb.data.shard_index import INDEX_NAME, Column, ShardEntry, ShardIndex
from pyfsb.errors import DataError
from pyfsb.records import FileEntry, hash_file


class ShardWriter:
    """Writes documents into shards of about equal size."""

    def __init__(
        self,
        folder: Path,
        *,
        vocabulary_size: int,
        max_tokens: int,
        shard_tokens: int,
        columns: Sequence[Column] = (),
    ) -> None:
        """Open an empty folder for writing.

        Args:
            folder: Local; made if needed.
            vocabulary_size: Decides between uint16 and uint32.
            max_tokens: Tokens of a sample at most, special tokens not counted.
            shard_tokens: A shard ends with the document that reaches this size.
            columns: What every document brings beside ids and word bits.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_tokens = max_tokens
        self._shard_tokens = shard_tokens
        self._columns = tuple(columns)
        self._token_type = np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")
        self._entries: list[ShardEntry] = []
        self._clear()

    def add(
        self,
        ids: NDArray[np.integer],
        words: NDArray[np.bool_],
        sample_starts: Iterable[int],
        *,
        columns: Mapping[Column, NDArray[Any]] | None = None,
        document_ends: Iterable[int] | None = None,
    ) -> None:
        """Append one document, or several at once.

        Args:
            ids: Token ids, shape [T]; T is at least 1.
            words: Word bits, shape [T].
            sample_starts: Where its samples begin, the first at 0.
            columns: The writer's columns, shape [T] each: bits, or uint8 of `knowledge`.
            document_ends: One past the last token of each document that ends here. None: all of
                it is one document.
        """
        self._ids.append(ids.astype(self._token_type))
        self._words.append(words)
        for name in self._columns:
            self._values[name].append((columns or {})[name])
        self._samples += [self._num_tokens + start for start in sample_starts]
        ends = (ids.size,) if document_ends is None else document_ends
        self._documents += [self._num_tokens + end for end in ends]
        self._num_tokens += ids.size
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
            columns=self._columns,
            shards=tuple(self._entries),
        )
        text = json.dumps(index.to_json(), indent=2) + "\n"
        storage.write_text(str(self._folder / INDEX_NAME), text)
        return index

    def _clear(self) -> None:
        self._ids: list[NDArray[np.integer]] = []
        self._words: list[NDArray[np.bool_]] = []
        self._values: dict[Column, list[NDArray[Any]]] = {name: [] for name in self._columns}
        self._samples: list[int] = []
        self._documents: list[int] = []
        self._num_tokens = 0

    def _flush(self) -> None:
        if not self._num_tokens:
            return
        name = f"shard-{len(self._entries):05d}"
        arrays: dict[str, NDArray[Any]] = {
            "tokens": np.concatenate(self._ids),
            "words": np.packbits(np.concatenate(self._words)),
            "samples": np.array([*self._samples, self._num_tokens], dtype="<u8"),
            "documents": np.array(self._documents, dtype="<u8"),
        }
        for column, values in self._values.items():
            arrays[column] = _pack(column, values)
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


def _pack(column: Column, values: list[NDArray[Any]]) -> NDArray[np.uint8]:
    """Return a column as it is stored: bits packed, `knowledge` a byte a token."""
    whole = np.concatenate(values)
    return whole.astype(np.uint8) if column == "knowledge" else np.packbits(whole)
