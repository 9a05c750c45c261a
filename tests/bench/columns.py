"""The data stage's workers on one core: every kind of tokenizer, and what each column costs.

Texts of the raw corpora (FSB_DATA, else our samples), vocabularies of 8,000 pieces trained on them;
CPU seconds of one process, median of three rounds. Training is timed once.
"""

from __future__ import annotations

import os
import statistics
import time

from pyfsb.config import DataSpec
from pyfsb.config.corpus_sections import GapSpec, KnowledgeSpec, TokenizerKind, VocabularySpec
from pyfsb.data.corpus_tokenizer import choose_tokenizer
from pyfsb.data.corpus_tokens import TokenPlan, WordCounts, tokenize_texts
from pyfsb.data.knowledge import count_documents
from pyfsb.data.segmenting import load_cutter
from tests.bench.data import _texts

_ROUNDS = 3
_SIZE = 8000


def main() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = _texts()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {megabytes:.1f} MB, {_SIZE} pieces, one core")
    for kind in TokenizerKind:
        data = DataSpec(vocabulary=VocabularySpec(kind=kind, size=_SIZE))
        started = time.process_time()
        chosen = choose_tokenizer(data, lambda: iter(texts), lambda: iter(texts))
        seconds = time.process_time() - started
        plan = TokenPlan(parts=chosen.parts, segmenter=data.segmenter, max_tokens=510)
        print(
            f"  {kind.value:16} {_speed(texts, plan, megabytes):6.2f} MB/s to tokens; trained in "
            f"{seconds:.1f} CPU seconds"
        )
        if kind is TokenizerKind.WORDPIECE:
            _measure_columns(texts, plan, megabytes)


def _measure_columns(texts: list[str], plan: TokenPlan, megabytes: float) -> None:
    started = time.process_time()
    documents, num_documents = count_documents(texts, load_cutter(plan.segmenter))
    print(
        f"    words of documents counted at {megabytes / (time.process_time() - started):.2f} MB/s"
    )
    words = WordCounts(spec=KnowledgeSpec(), documents=documents, num_documents=num_documents)
    for name, gap_ratio, counts in (("gaps", GapSpec().ratio, None), ("knowledge", None, words)):
        own = TokenPlan(
            parts=plan.parts, segmenter=plan.segmenter, max_tokens=plan.max_tokens,
            gap_ratio=gap_ratio, words=counts,
        )  # fmt: skip
        print(f"    with {name:10} {_speed(texts, own, megabytes):6.2f} MB/s")


def _speed(texts: list[str], plan: TokenPlan, megabytes: float) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        num_tokens = sum(one.ids.size for one in tokenize_texts(texts, plan, num_processes=1))
        seconds.append(time.process_time() - started)
        assert num_tokens
    return megabytes / statistics.median(seconds)


if __name__ == "__main__":
    main()
