# SPDX-License-Identifier: Apache-2.0
"""Texts of a corpus into a folder of shards, and the n-gram lexicon of what is in it.

Called by `prepare`; never reads raw files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pyfsb.config import DataSpec
from pyfsb.config.corpus_sections import NgramSpec
from pyfsb.config.run_spec import available_cores
from pyfsb.data.corpus_tokenizer import ChosenTokenizer
from pyfsb.data.corpus_tokens import CorpusDocument, TokenPlan, WordCounts, tokenize_texts
from pyfsb.data.knowledge import count_documents
from pyfsb.data.segmenting import load_cutter
from pyfsb.data.shards import NUM_SPECIAL_TOKENS, Column, Shards, ShardWriter
from pyfsb.data.vocabulary import build_tokenizer, vocabulary_digest
from pyfsb.errors import ConfigError
from pyfsb.seeding import uniform
from pyfsb.tokenizers.ngram_training import train_lexicon

_JOINED_SAMPLES: Final = 256
"""Samples that joined documents wait for before they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came into shards."""

    num_words: int
    """Words the segmenter found."""
    num_empty: int
    """Documents without a token; they are in no shard."""
    columns: tuple[Column, ...]
    """What the shards hold beside ids and word bits."""


def write_shards(
    texts: Iterable[str],
    chosen: ChosenTokenizer,
    data: DataSpec,
    folder: Path,
    *,
    counted: Callable[[int], Iterator[str]],
) -> Written:
    """Tokenise in worker processes, write in order.

    Args:
        texts: The documents that stay, normalised.
        chosen: The tokenizer.
        data: From `complete_data`.
        folder: Where shards and index go.
        counted: Gives a sample of the same documents, of about so many bytes of raw files.

    Raises:
        DataError: No document is left.
    """
    wanted = data.columns or ()
    max_tokens = data.max_tokens - NUM_SPECIAL_TOKENS
    plan = TokenPlan(
        parts=chosen.parts,
        segmenter=data.segmenter,
        max_tokens=max_tokens,
        gap_ratio=data.gaps.ratio if "gaps" in wanted else None,
        words=_count_words(data, counted) if "knowledge" in wanted else None,
    )
    writer = ShardWriter(
        folder,
        vocabulary_size=len(chosen.pieces),
        max_tokens=max_tokens,
        shard_tokens=data.shard_tokens,
        columns=plan.columns,
    )
    joiner = _Joiner(writer, end_id=chosen.end_id, size=max_tokens) if data.concatenate else None
    num_words = num_empty = 0
    num_processes = data.num_processes or available_cores()
    for document in tokenize_texts(texts, plan, num_processes=num_processes):
        if not document.ids.size:
            num_empty += 1
            continue
        num_words += int(document.words.sum())
        if joiner:
            joiner.add(document)
        else:
            writer.add(
                document.ids, document.words, document.sample_starts, columns=document.columns
            )
    if joiner:
        joiner.close()
    writer.close(vocabulary_digest(chosen.pieces))
    return Written(num_words=num_words, num_empty=num_empty, columns=plan.columns)


def _count_words(data: DataSpec, counted: Callable[[int], Iterator[str]]) -> WordCounts:
    documents, num_documents = count_documents(
        counted(data.knowledge.sample_bytes), load_cutter(data.segmenter)
    )
    return WordCounts(spec=data.knowledge, documents=documents, num_documents=num_documents)


class _Joiner:
    """Joins documents into samples of one size, an end token behind each document."""

    _ids: list[NDArray[np.int32]]
    _words: list[NDArray[np.bool_]]
    _columns: dict[Column, list[NDArray[Any]]]
    _ends: list[int]
    _num_tokens: int

    def __init__(self, writer: ShardWriter, *, end_id: int, size: int) -> None:
        self._writer = writer
        self._end_id = end_id
        self._size = size
        self._clear()

    def add(self, document: CorpusDocument) -> None:
        """Take a document; whole samples go to the writer once there are many."""
        self._ids.append(np.append(document.ids, self._end_id))
        self._words.append(np.append(document.words, True))
        for name, values in document.columns.items():
            # The end token is a word and a sentence of its own, and means nothing.
            self._columns.setdefault(name, []).append(np.append(values, name == "sentences"))
        self._num_tokens += document.ids.size + 1
        self._ends.append(self._num_tokens)
        if self._num_tokens >= _JOINED_SAMPLES * self._size:
            self._write(self._num_tokens // self._size * self._size)

    def close(self) -> None:
        """Write the rest; the last sample alone may be shorter."""
        if self._num_tokens:
            self._write(self._num_tokens)

    def _write(self, stop: int) -> None:
        ids, words = np.concatenate(self._ids), np.concatenate(self._words)
        columns = {name: np.concatenate(values) for name, values in self._columns.items()}
        ends = self._ends
        self._writer.add(
            ids[:stop], words[:stop], range(0, stop, self._size),
            columns={name: values[:stop] for name, values in columns.items()},
            document_ends=[end for end in ends if end <= stop],
        )  # fmt: skip
        self._clear()
        if stop < ids.size:
            self._ids, self._words = [ids[stop:]], [words[stop:]]
            self._columns = {name: [values[stop:]] for name, values in columns.items()}
            self._num_tokens = ids.size - stop
            self._ends = [end - stop for end in ends if end > stop]

    def _clear(self) -> None:
        self._ids, self._words, self._columns, self._ends = [], [], {}, []
        self._num_tokens = 0


def write_ngrams(
    folder: Path, chosen: ChosenTokenizer, spec: NgramSpec, *, kind: str, seed: int
) -> int:
    """Make the n-gram lexicon of a shard folder, into the tokenizer's folder; return its size.

    Args:
        folder: With shards and tokenizer.
        chosen: The tokenizer, of kind wordpiece.
        spec: Sizes.
        kind: zen1 or zen2.
        seed: Chooses documents where there are more than the sample.

    Raises:
        ConfigError: The tokenizer is of another kind.
        DataError: The corpus gives no n-gram.
    """
    if chosen.parts.kind != "wordpiece":
        raise ConfigError(
            f"data.ngrams needs a WordPiece vocabulary; this one is {chosen.parts.kind}"
        )
    shards = Shards.open(folder)
    share = min(1.0, spec.sample_tokens / shards.num_tokens)
    tokenizer = build_tokenizer(chosen.pieces, lowercase=chosen.parts.lowercase)
    lexicon = train_lexicon(
        lambda: _documents(shards, folder, share=share, seed=seed),
        pieces=chosen.pieces,
        encode=lambda texts: [
            found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ],
        kind=kind,
        min_count=spec.min_count,
        min_pmi=spec.min_pmi,
        max_length=spec.max_tokens,
        max_size=spec.size,
    )
    lexicon.write(folder / "tokenizer")
    return len(lexicon.lines)


def _documents(
    shards: Shards, folder: Path, *, share: float, seed: int
) -> Iterator[NDArray[np.integer]]:
    """Yield the ids of the documents of shards, or of a share of them."""
    token_type = np.dtype(shards.index.token_type).newbyteorder("<")
    number = 0
    for shard in shards.index.shards:
        ids = np.fromfile(folder / f"{shard.name}.tokens", dtype=token_type)
        ends = np.fromfile(folder / f"{shard.name}.documents", dtype="<u8").astype(np.int64)
        is_chosen = uniform(seed, np.arange(number, number + ends.size)) < share
        number += ends.size
        starts = np.concatenate(([0], ends[:-1]))
        for start, end in zip(starts[is_chosen].tolist(), ends[is_chosen].tolist(), strict=True):
            yield ids[start:end]
