"""Normalised Chinese text to ids and word bits on one core.

Peers: `tokenizers` alone (`encode_batch_fast`, one thread) for the ids, and the same with jieba
for the word bits. Limit: rjieba cutting the same text and nothing else. Variants take turns; each
figure is the median of five rounds in CPU seconds, and ids and words are compared.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jieba
import rjieba

from pyfsb.data import readers
from pyfsb.data.documents import Document
from pyfsb.data.normalizing import normalise_text
from pyfsb.data.segmenting import RUNS, load_cutter
from pyfsb.data.tokenizing import DocumentTokenizer
from pyfsb.data.vocabulary import build_tokenizer, train_vocabulary
from tests.conftest import SAMPLES

_ROUNDS = 5
_MEGABYTES = 4.0


def main() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = _texts()
    num_bytes = sum(len(text.encode()) for text in texts)
    pieces = train_vocabulary(texts, size=8000, lowercase=True)
    ours = DocumentTokenizer(pieces, lowercase=True, cut=load_cutter("rjieba"))
    reference = build_tokenizer(pieces, lowercase=True)
    for document, text in zip(ours.tokenize_batch(texts), texts, strict=True):
        assert document.ids.tolist() == reference.encode(text, add_special_tokens=False).ids
    jieba.initialize()
    variants: dict[str, Callable[[], object]] = {
        "ours: ids, word bits, sentences": lambda: ours.tokenize_batch(texts),
        "tokenizers: ids": lambda: reference.encode_batch_fast(texts, add_special_tokens=False),
        "tokenizers + jieba: ids, words": lambda: _with_jieba(reference, texts),
        "limit: rjieba.cut alone": lambda: [rjieba.cut(text) for text in texts],
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(_ROUNDS):
        for name, run in variants.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    print(f"{len(texts)} documents, {num_bytes / 1e6:.1f} MB, ids equal, CPU seconds of one core")
    first = next(iter(variants))
    for name, values in seconds.items():
        ratios = [other / own for own, other in zip(seconds[first], values, strict=True)]
        speed = num_bytes / 1e6 / statistics.median(values)
        print(
            f"{name:34} {speed:7.2f} MB/s   ours is {statistics.median(ratios):5.2f}x "
            f"({min(ratios):.2f}–{max(ratios):.2f})"
        )


def _with_jieba(reference: object, texts: list[str]) -> object:
    words = [[jieba.lcut(run) for run in RUNS.findall(text)] for text in texts]
    encoded = reference.encode_batch_fast(texts, add_special_tokens=False)  # type: ignore[attr-defined]
    return words, encoded


def _texts() -> list[str]:
    root = os.environ.get("FSB_DATA") or str(SAMPLES)
    texts: list[str] = []
    num_bytes = 0.0
    for name in readers.find_files(root, ["rawcorpus/*.jsonl.gz"]):
        share = 0.0
        items = readers.read_documents(
            Path(root, name), source=name, text_field="text", txt_documents="lines"
        )
        for item in items:
            if isinstance(item, Document) and share < _MEGABYTES / 6:
                texts.append(normalise_text(item.text))
                share += len(texts[-1].encode()) / 1e6
        num_bytes += share
    return texts
