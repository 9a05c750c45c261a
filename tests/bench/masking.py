"""B2: batches of 64 x 512 tokens with whole words hidden, one core.

Peers in the same process, taking turns: the collator of `transformers` with `whole_word_mask` (fed
with tokens, offsets and the mask of special tokens, all made beforehand); words cut by jieba inside
of the collator, tokens given; and the old framework's collator, which is given texts: it tokenises,
cuts with jieba, finds the words among the tokens and draws n-grams of them one by one. The limit is
copying the batch. What is measured is CPU time from samples to inputs and targets. The text is
FSB_DATA's raw corpus, else the samples.

    python -m tests.bench masking
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jieba
import numpy as np
import torch
from transformers import BertTokenizerFast, DataCollatorForLanguageModeling
from transformers.utils import logging as transformers_logging

from pyfsb.data.normalizing import normalise_text
from pyfsb.data.readers import read_documents
from pyfsb.data.segmenting import load_cutter
from pyfsb.data.tokenizing import DocumentTokenizer
from pyfsb.data.vocabulary import train_vocabulary
from pyfsb.objectives import SpecialIds, WholeWord
from pyfsb.objectives.protocol import Samples
from tests.conftest import SAMPLES

NUM_ROWS, ROW_TOKENS, NUM_SPECIAL = 64, 512, 2
RATIO, ROUNDS = 0.15, 7
MAX_WORD = 6
TARGETS = {"transformers": 400.0, "jieba": 800.0, "old framework": 800.0}
LONGEST_NGRAM = 3


def main() -> None:
    transformers_logging.set_verbosity_error()
    jieba.setLogLevel("ERROR")
    texts = _texts()
    pieces = train_vocabulary(iter(texts), size=12800, lowercase=True)
    rows = _cut_rows(texts, pieces)
    samples = _as_samples(rows)
    objective = WholeWord(SpecialIds.of(pieces), mask_ratio=RATIO)
    collate, features = _transformers_way(rows, pieces)
    tokens = [[pieces[i] for i in ids] for ids, _ in rows]
    old = OldCollator(pieces)
    row_texts = ["".join(own).replace("##", "").replace("[UNK]", "") for own in tokens]
    passes = iter(range(1 << 20))
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: objective.build(_of_pass(samples, next(passes)), seed=1),
        "transformers": lambda: collate([dict(feature) for feature in features]),
        "jieba": lambda: [_jieba_way(own, ids) for own, (ids, _) in zip(tokens, rows, strict=True)],
        "old framework": lambda: old(row_texts),
        "copy": lambda: samples.ids_N.copy(),
    }  # fmt: skip
    _check_words(objective, samples)
    repeats = {"ours": 200, "copy": 2000}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            seconds[name].append(_cpu_seconds(way, repeats.get(name, 1)))
    num_tokens = NUM_ROWS * ROW_TOKENS
    for name, found in seconds.items():
        middle = statistics.median(found)
        print(f"{name:14} {middle * 1e3:9.3f} ms a batch  {num_tokens / middle / 1e6:9.2f} Mtok/s")
    for name, target in TARGETS.items():
        ratios = [a / b for a, b in zip(seconds[name], seconds["ours"], strict=True)]
        print(
            f"ours against {name}: {statistics.median(ratios):.0f}x "
            f"({min(ratios):.0f} to {max(ratios):.0f}), target {target:.0f}x"
        )
    print("target of one core: 25 Mtok/s")
    _show_sentences(collate, features, samples)


def _texts() -> list[str]:
    folder = Path(os.environ["FSB_DATA"]) / "rawcorpus" if "FSB_DATA" in os.environ else SAMPLES
    texts: list[str] = []
    for path in sorted(folder.rglob("*.jsonl*"))[:4]:
        for document in read_documents(
            path, source=path.name, text_field="text", txt_documents="lines"
        ):
            if text := normalise_text(getattr(document, "text", "")):
                texts.append(text)
            if sum(map(len, texts)) > 600_000:
                return texts
    return texts


def _cut_rows(texts: list[str], pieces: list[str]) -> list[tuple[list[int], list[bool]]]:
    """Return full rows of ids and word bits."""
    tokenizer = DocumentTokenizer(pieces, lowercase=True, cut=load_cutter("jieba"))
    ids, words = [], []
    for document in tokenizer.tokenize_batch(texts):
        ids += document.ids.tolist()
        words += document.word_starts.tolist()
    size = ROW_TOKENS - NUM_SPECIAL
    return [
        (ids[n * size : (n + 1) * size], words[n * size : (n + 1) * size]) for n in range(NUM_ROWS)
    ]


def _as_samples(rows: list[tuple[list[int], list[bool]]]) -> Samples:
    return Samples(
        ids_N=np.concatenate([ids for ids, _ in rows]).astype(np.int64),
        words_N=np.concatenate([words for _, words in rows]),
        lengths_B=np.array([len(ids) for ids, _ in rows]),
        sample_ids_B=np.arange(len(rows)),
        passes_B=np.zeros(len(rows), dtype=np.int64),
    )


def _of_pass(samples: Samples, number: int) -> Samples:
    """Return the samples in another pass, so that nothing is drawn twice."""
    return Samples(
        ids_N=samples.ids_N, words_N=samples.words_N, lengths_B=samples.lengths_B,
        sample_ids_B=samples.sample_ids_B, passes_B=samples.passes_B + number,
    )  # fmt: skip


def _transformers_way(
    rows: list[tuple[list[int], list[bool]]], pieces: list[str]
) -> tuple[Any, list[dict[str, Any]]]:
    """Return the collator and its features, the tokens of the same rows."""
    tokenizer = BertTokenizerFast(vocab={piece: n for n, piece in enumerate(pieces)})
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm=True, mlm_probability=RATIO, whole_word_mask=True, return_tensors="pt",
        seed=1,
    )  # fmt: skip
    cls, sep = pieces.index("[CLS]"), pieces.index("[SEP]")
    features = []
    for ids, _ in rows:
        lengths = [len(pieces[i].removeprefix("##")) for i in ids]
        ends = np.cumsum(lengths).tolist()
        places = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        features.append({
            "input_ids": [cls, *ids, sep],
            "special_tokens_mask": [1, *[0] * len(ids), 1],
            "offset_mapping": [(0, 0), *places, (0, 0)],
            "attention_mask": [1] * (len(ids) + 2),
        })  # fmt: skip
    return collator, features


def _find_words(tokens: list[str]) -> list[list[int]]:
    """Return the tokens of each word, as the old collator finds them.

    The tokens' text is cut by jieba into a set of words; from each token on, the longest run that is
    one of them is taken, no longer than the longest word with that first character.
    """
    longest: dict[str, int] = {}
    words = set(jieba.lcut("".join(token.removeprefix("##") for token in tokens)))
    for word in words:
        longest[word[0]] = max(longest.get(word[0], 0), len(word))
    units, place = [], 0
    while place < len(tokens):
        end = place + 1
        for stop in range(min(len(tokens), place + longest.get(tokens[place][0], 1)), place, -1):
            if "".join(tokens[place:stop]) in words:
                end = stop
                break
        while end < len(tokens) and tokens[end].startswith("##"):
            end += 1
        units.append(list(range(place, end)))
        place = end
    return units


def _jieba_way(tokens: list[str], ids: list[int]) -> tuple[list[int], list[int]]:
    """Cut a row's text, find its words, hide some in random order up to the budget."""
    units = _find_words(tokens)
    random.shuffle(units)
    budget = round(RATIO * len(ids))
    hidden, targets = list(ids), [-100] * len(ids)
    for unit in units:
        if len(unit) > budget:
            continue
        budget -= len(unit)
        for token in unit:
            targets[token] = ids[token]
            draw = random.random()
            if draw < 0.9:
                hidden[token] = 4 if draw < 0.8 else random.randrange(5, 12800)
    return hidden, targets


class OldCollator:
    """What the published DeBERTa pretraining does for each batch of texts, in our own words.

    Source: fengshen's pretrain_deberta.py and data_utils/mask_utils.py at c8fb7b8.
    """

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces
        self._tokenizer = BertTokenizerFast(vocab={piece: n for n, piece in enumerate(pieces)})
        self._draws = np.random.RandomState(42)
        chances = 1.0 / np.arange(1, LONGEST_NGRAM + 1)
        self._chances = [chances[: n + 1] / chances[: n + 1].sum() for n in range(LONGEST_NGRAM)]
        self._frame = [pieces.index(name) for name in ("[CLS]", "[SEP]", "[MASK]")]

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        rows = [self._make_row(text) for text in texts]
        return {
            name: torch.stack([torch.from_numpy(row[name]) for row in rows]) for name in rows[0]
        }

    def _make_row(self, text: str) -> dict[str, Any]:
        cls, sep, mask = self._frame
        tokens = self._tokenizer.tokenize(text)[: ROW_TOKENS - NUM_SPECIAL]
        ids = [cls, *self._tokenizer.convert_tokens_to_ids(tokens), sep]
        shown, labels = list(ids), [-100] * ROW_TOKENS
        for place in self._draw_places(_find_words(tokens), len(ids)):
            labels[place + 1] = ids[place + 1]
            if self._draws.random_sample() < 0.8:
                shown[place + 1] = mask
            elif self._draws.random_sample() < 0.5:
                shown[place + 1] = int(self._draws.randint(len(self._pieces)))
        filler = [0] * (ROW_TOKENS - len(ids))
        return {
            "input_ids": np.array(shown + filler, dtype=np.int64),
            "attention_mask": np.array([1] * len(ids) + filler, dtype=np.int64),
            "token_type_ids": np.zeros(ROW_TOKENS, dtype=np.int64),
            "labels": np.array(labels, dtype=np.int64),
        }

    def _draw_places(self, words: list[list[int]], num_tokens: int) -> list[int]:
        """Take n-grams of words in random order while they fit the budget and do not overlap."""
        budget, taken = round(RATIO * num_tokens), set[int]()
        ngrams = [[words[i : i + n + 1] for n in range(LONGEST_NGRAM)] for i in range(len(words))]
        self._draws.shuffle(ngrams)
        for choices in ngrams:
            if len(taken) >= budget:
                break
            size = self._draws.choice(len(choices), p=self._chances[len(choices) - 1])
            while size >= 0:
                places = [place for word in choices[size] for place in word]
                if len(taken) + len(places) <= budget:
                    if taken.isdisjoint(places):
                        taken.update(places)
                    break
                size -= 1
        return sorted(taken)


def _cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - started) / repeats


def _check_words(objective: WholeWord, samples: Samples) -> None:
    """Every word is hidden whole or not at all."""
    inputs = objective.build(samples, seed=1)
    is_target = np.zeros(inputs.input_ids_N.size, dtype=np.bool_)
    is_target[inputs.target_positions_P] = True
    inner = is_target.reshape(NUM_ROWS, ROW_TOKENS)[:, 1:-1].reshape(-1)
    starts = samples.words_N.copy()
    starts[:: ROW_TOKENS - NUM_SPECIAL] = True
    words = np.cumsum(starts) - 1
    shares = np.bincount(words, inner) / np.bincount(words)
    whole = float(np.mean((shares == 0) | (shares == 1)))
    print(f"words of jieba hidden whole or not at all: {whole:.2%}; tokens: {inner.mean():.3f}")


def _show_sentences(collate: Any, features: list[dict[str, Any]], samples: Samples) -> None:
    """Say how long what `transformers` takes for a word is in Chinese."""
    lengths = []
    for feature in features:
        places = feature["offset_mapping"][1:-1]
        length = 0
        for place, (start, _) in enumerate(places):
            if place and start == places[place - 1][1]:
                length += 1
            else:
                lengths += [length] if length else []
                length = 1
        lengths.append(length)
    batch = collate([dict(feature) for feature in features])
    share = float((batch["labels"] != -100).float().mean())
    words = np.diff(np.append(np.flatnonzero(samples.words_N), samples.ids_N.size))
    long = np.array(lengths)
    print(
        f"a 'word' of transformers has {long.mean():.1f} tokens (longest {long.max()}), "
        f"{np.average(long > MAX_WORD, weights=long):.0%} of tokens lie in ones longer than "
        f"{MAX_WORD}; its collator hid {share:.1%} of tokens. A word of jieba has "
        f"{words.mean():.2f} tokens."
    )


if __name__ == "__main__":
    main()
