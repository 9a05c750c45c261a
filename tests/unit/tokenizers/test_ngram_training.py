"""The lexicon trainer finds what was planted, in bounded memory, always the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pyfsb.errors import ConfigError, DataError
from pyfsb.tokenizers import ngram_training
from pyfsb.tokenizers.ngram_counting import RunCounter
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon
from pyfsb.tokenizers.ngram_training import train_lexicon

PIECES = [
    "[PAD]", "[UNK]", "[MASK]", "，", ",", "hello", "world", "##ing",
    *(chr(0x4E00 + i) for i in range(300)),
]  # fmt: skip
IDS = {piece: number for number, piece in enumerate(PIECES)}
PLANTED = ["世界", "丞丟両", "主丼丽丿", "乇乌乎乏乐乒乓"]
FIRST = len(PIECES) - 300


def encode(texts: list[str]) -> list[list[int]]:
    found = []
    for text in texts:
        words = text.replace("ing", " ##ing").split()
        parts = [[word] if word in IDS else list(word) for word in words]
        found.append([IDS.get(piece, 1) for part in parts for piece in part])
    return found


def corpus(seed: int = 0, num_documents: int = 400) -> list[NDArray[np.int64]]:
    """Documents of random hanzi, with planted n-grams whose hanzi stand nowhere else."""
    generator = np.random.default_rng(seed)
    planted = encode([text.replace("世界", "丂七") for text in PLANTED])
    taken = {i for run in planted for i in run}
    others = np.array([i for i in range(FIRST, len(PIECES)) if i not in taken])
    documents = []
    for _ in range(num_documents):
        parts: list[Any] = []
        for _ in range(6):
            parts += [generator.choice(others, 8), planted[generator.integers(len(planted))]]
        documents.append(np.concatenate(parts).astype(np.int64))
    return documents


def train(documents: list[NDArray[np.int64]], **options: Any) -> NgramLexicon:
    settings = {"min_count": 20, "min_pmi": 3.5} | options
    return train_lexicon(lambda: documents, pieces=PIECES, encode=encode, **settings)


def test_planted_ngrams_are_found_and_nothing_else() -> None:
    documents = corpus()
    lexicon = train(documents)
    wanted = {"丂七", *PLANTED[1:]}
    counts = dict(line.split(",") for line in lexicon.lines)
    assert set(counts) == wanted
    runs = {text: np.array(run) for text, run in zip(wanted, encode(list(wanted)), strict=True)}
    for text, run in runs.items():
        times = sum(
            np.lib.stride_tricks.sliding_window_view(document, run.size).__eq__(run).all(1).sum()
            for document in documents
        )
        # A random neighbour that holds on by chance makes a longer n-gram of a few.
        assert 0.9 * times <= int(counts[text]) <= times
    assert [int(line.split(",")[1]) for line in lexicon.lines] == sorted(
        map(int, counts.values()), reverse=True
    )
    assert lexicon.size == 5


def test_the_same_corpus_gives_the_same_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = corpus()
    wanted = train(documents, min_count=1, min_pmi=1.0).lines
    assert len(wanted) > 50
    monkeypatch.setattr(ngram_training, "_CHUNK_TOKENS", 500)
    assert train(documents, min_count=1, min_pmi=1.0).lines == wanted


def test_little_memory_keeps_what_is_frequent() -> None:
    lexicon = train(corpus(), max_runs=400)
    assert {line.split(",")[0] for line in lexicon.lines} == {"丂七", *PLANTED[1:]}


def test_the_size_and_the_length_are_bounded() -> None:
    assert len(train(corpus(), max_size=2).lines) == 2
    lengths = {len(line.split(",")[0]) for line in train(corpus(), max_length=3).lines}
    assert lengths == {2, 3}, "the longer ones are cut at their weakest pairs"


def test_specials_punctuation_and_document_ends_cut() -> None:
    document = np.array(encode(["丞丟"])[0])
    comma, mask = np.array([IDS["，"]]), np.array([IDS["[MASK]"]])
    documents = [np.concatenate([document, comma, document, mask, document])] * 10
    lexicon = train(documents, min_count=1, min_pmi=0.1)
    assert lexicon.lines == ("丞丟,30",)
    assert train([document] * 10, min_count=1, min_pmi=0.1).lines == ("丞丟,10",)


def test_only_texts_that_become_the_same_tokens_are_kept() -> None:
    words = [np.array([IDS["hello"], IDS["world"]]), np.array([IDS["hello"], IDS["##ing"]])]
    cut = [np.array([IDS["##ing"], IDS["丞"]])]
    lexicon = train([*words * 30, *cut * 30], min_count=5, min_pmi=0.1)
    assert sorted(lexicon.lines) == ["helloing,30", "hello world,30"][::-1]


def test_what_cannot_work_is_refused() -> None:
    def no_documents() -> Iterator[NDArray[np.int64]]:
        return iter(())

    with pytest.raises(ConfigError, match="max_length = 8: expected 2 to 7"):
        train(corpus(), max_length=8)
    with pytest.raises(ConfigError, match="min_count = 0"):
        train(corpus(), min_count=0)
    with pytest.raises(DataError, match="gives no n-gram: none of 2 to 7 pieces stands 5 times"):
        train_lexicon(no_documents, pieces=PIECES, encode=encode)
    with pytest.raises(DataError, match="token id 999: the vocabulary has 308 pieces"):
        train([np.array([999])])


def test_counts_are_exact_until_there_is_no_room() -> None:
    generator = np.random.default_rng(1)
    rows = generator.integers(-1, 5, (3000, 3))
    counter = RunCounter(3, max_runs=1000)
    for part in np.array_split(rows, 7):
        counter.add(part)
    runs, counts = counter.result()
    wanted_runs, wanted_counts = np.unique(rows, axis=0, return_counts=True)
    assert np.array_equal(runs, wanted_runs)
    assert np.array_equal(counts, wanted_counts)
    assert counter.num_lost == 0
    small = RunCounter(3, max_runs=50)
    small.add(np.zeros((500, 3), dtype=np.int64))
    for part in np.array_split(rows, 7):
        small.add(part)
        assert len(small.result()[0]) <= 50
    assert small.num_lost > 0
    runs, counts = small.result()
    assert counts[(runs == 0).all(1)].item() == 500 + (rows == 0).all(1).sum()
