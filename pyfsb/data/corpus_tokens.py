# SPDX-License-Identifier: Apache-2.0
"""Texts to tokens and their columns, in worker processes; the order of texts is kept.

What a document becomes depends on the document and the plan alone, so the number of processes does
not matter. Called by `corpus_shards`.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pyfsb.config.corpus_sections import KnowledgeSpec
from pyfsb.data.gap_sentences import is_gap
from pyfsb.data.knowledge import WordWeights, load_tags, weigh_tokens
from pyfsb.data.offset_tokenizing import make_tokenizer
from pyfsb.data.segmenting import Cutter, load_cutter
from pyfsb.data.shard_index import Column
from pyfsb.data.tokenizer_files import TokenizerParts
from pyfsb.data.tokenizing import CorpusTokenizer, TokenizedDocument, cut_samples
from pyfsb.processes import die_with_parent

_BATCH_CHARACTERS: Final = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WordCounts:
    """What the weights of words are made of."""

    spec: KnowledgeSpec
    """The weights of the sum."""
    documents: Mapping[str, int]
    """In how many documents of a sample each word is."""
    num_documents: int
    """Documents of that sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlan:
    """What workers make of texts; plain data."""

    parts: TokenizerParts
    """The tokenizer."""
    segmenter: str
    """Of word bits."""
    max_tokens: int
    """Tokens of a sample at most, special tokens not counted."""
    gap_ratio: float | None = None
    """As in `GapSpec`; None: no gap sentences are chosen."""
    words: WordCounts | None = None
    """None: words are not weighed."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What every document has beside ids and word bits."""
        found: list[Column] = ["sentences"]
        if self.gap_ratio is not None:
            found.append("gaps")
        if self.words is not None:
            found.append("knowledge")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusDocument:
    """One document as shards hold it."""

    ids: NDArray[np.int32]
    """Token ids, [T]."""
    words: NDArray[np.bool_]
    """Word bits, [T]."""
    sample_starts: list[int]
    """Where its samples begin."""
    columns: dict[Column, NDArray[Any]]
    """The plan's columns, [T] each."""


def tokenize_texts(
    texts: Iterable[str], plan: TokenPlan, *, num_processes: int
) -> Iterator[CorpusDocument]:
    """Yield the tokens of each text in order, a bounded number of batches ahead."""
    if num_processes == 1:
        worker = _Worker(plan)
        for batch in _batches(texts):
            yield from worker.tokenize(batch)
        return
    with ProcessPoolExecutor(num_processes, initializer=_start_worker, initargs=(plan,)) as pool:
        waiting: deque[Future[list[CorpusDocument]]] = deque()
        for batch in _batches(texts):
            waiting.append(pool.submit(_tokenize_batch, batch))
            if len(waiting) > 2 * num_processes:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_characters = 0
    for text in texts:
        batch.append(text)
        num_characters += len(text)
        if num_characters >= _BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


class _Worker:
    """A plan with its tables built."""

    def __init__(self, plan: TokenPlan) -> None:
        self._plan = plan
        self._tokenizer: CorpusTokenizer = make_tokenizer(plan.parts, segmenter=plan.segmenter)
        self._cut: Cutter = load_cutter(plan.segmenter)
        self._weights: WordWeights | None = None
        if plan.words is not None:
            self._weights = WordWeights(
                plan.words.spec, tags=load_tags(), documents=plan.words.documents,
                num_documents=plan.words.num_documents,
            )  # fmt: skip

    def tokenize(self, texts: Sequence[str]) -> list[CorpusDocument]:
        """Return the tokens of texts."""
        documents = self._tokenizer.tokenize_batch(texts)
        return [self._finish(text, own) for text, own in zip(texts, documents, strict=True)]

    def _finish(self, text: str, document: TokenizedDocument) -> CorpusDocument:
        sample_starts = cut_samples(document, self._plan.max_tokens)
        columns: dict[Column, NDArray[Any]] = {"sentences": document.sentence_starts}
        if self._plan.gap_ratio is not None:
            columns["gaps"] = mark_gaps(
                text, document, sample_starts, ratio=self._plan.gap_ratio, cut=self._cut
            )
        if self._weights is not None:
            columns["knowledge"] = weigh_tokens(
                text, document.positions, document.word_starts, weights=self._weights,
                cut=self._cut,
            )  # fmt: skip
        return CorpusDocument(
            ids=document.ids, words=document.word_starts, sample_starts=sample_starts,
            columns=columns,
        )  # fmt: skip


def mark_gaps(
    text: str,
    document: TokenizedDocument,
    sample_starts: Sequence[int],
    *,
    ratio: float,
    cut: Cutter,
) -> NDArray[np.bool_]:
    """Mark the tokens of gap sentences, chosen in every sample for itself, [T]."""
    num_tokens = document.ids.size
    places = np.append(document.positions, len(text))
    marks = np.zeros(num_tokens, dtype=np.bool_)
    for start, stop in pairwise([*sample_starts, num_tokens]):
        sentences = start + np.flatnonzero(document.sentence_starts[start:stop])
        if not sentences.size or sentences[0] != start:  # a sentence that began before
            sentences = np.concatenate(([start], sentences))
        if sentences.size < 2:
            continue
        sample = text[places[start] : places[stop]]
        begins = (places[sentences] - places[start]).tolist()
        found = is_gap(sample, begins, ratio=ratio, cut=cut)
        marks[start:stop] = np.repeat(found, np.diff(sentences, append=stop))
    return marks


def _start_worker(plan: TokenPlan) -> None:
    global _worker
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process a core already
    _worker = _Worker(plan)


_worker: _Worker


def _tokenize_batch(texts: list[str]) -> list[CorpusDocument]:
    return _worker.tokenize(texts)
