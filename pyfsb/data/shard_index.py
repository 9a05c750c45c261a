# SPDX-License-Identifier: Apache-2.0
"""What a shard folder holds: its `index.json`.

Written by `shard_writer`, read by `shards` and `streaming`; never opens a shard file.
"""

from __future__ import annotations

import json
from typing import Final, Literal, TypeAlias

from pyfsb import storage
from pyfsb.errors import CheckpointError, ConfigError, DataError
from pyfsb.records import FileEntry
from pyfsb.schema import Schema, parse

NUM_SPECIAL_TOKENS: Final = 2
"""[CLS] and [SEP] around every sample; they are added by the batches, not stored."""
INDEX_NAME: Final = "index.json"
FORMAT_VERSION: Final = 2
"""2 names the columns; folders of version 1 have none and open as before."""
_READABLE: Final = (1, FORMAT_VERSION)

Column: TypeAlias = Literal["sentences", "gaps", "knowledge"]
"""What a folder may hold of each token beside id and word bit."""


class ShardEntry(Schema):
    """One shard of the index."""

    name: str
    """Base name of its files."""
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
    columns: tuple[Column, ...] = ()
    """What each shard holds beside ids and word bits: a file of each."""
    shards: tuple[ShardEntry, ...]
    """The shards in order."""


def find_file(shard: ShardEntry, kind: str) -> FileEntry:
    """Return the entry of a shard's tokens, words, samples, documents or of a column.

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
    if index.format_version not in _READABLE:
        raise DataError(
            f"{uri}: shard format {index.format_version}, this version reads "
            f"{' and '.join(map(str, _READABLE))}; prepare the data again"
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
            f"{expected}; prepare the data with data.tokenizer set to that one's folder"
        )
