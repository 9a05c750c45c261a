"""Samples for objectives, and their batches taken apart document by document."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyfsb.objectives import SpecialIds
from pyfsb.objectives.protocol import Inputs, Samples

LETTERS = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥"
PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "<extra_id_0>",
    *LETTERS, "[", "]", *(f"<extra_id_{number}>" for number in range(1, 200)),
]  # fmt: skip
SPECIAL = SpecialIds.of(PIECES)
FIRST, NUM_ORDINARY = 7, len(LETTERS) + 2
PAD, CLS, SEP, MASK = 0, 2, 3, 4


def make_samples(
    lengths: list[int], *, seed: int = 0, sample_ids: list[int] | None = None, passes: int = 0,
    word_rate: float = 0.6, sentence_rate: float = 0.1,
) -> Samples:  # fmt: skip
    """Random samples; what a sample holds depends on its id alone."""
    ids = list(range(len(lengths))) if sample_ids is None else sample_ids
    parts = [
        _row(length, seed, own, word_rate, sentence_rate)
        for length, own in zip(lengths, ids, strict=True)
    ]
    columns = [np.concatenate([part[k] for part in parts]) for k in range(5)]
    return Samples(
        ids_N=columns[0], words_N=columns[1], lengths_B=np.array(lengths, dtype=np.int64),
        sample_ids_B=np.array(ids, dtype=np.int64),
        passes_B=np.full(len(lengths), passes, dtype=np.int64),
        sentences_N=columns[2], gaps_N=columns[3], knowledge_N=columns[4],
    )  # fmt: skip


def _row(
    length: int, seed: int, sample_id: int, word_rate: float, sentence_rate: float
) -> list[Any]:
    rng = np.random.default_rng([seed, sample_id])
    ids = rng.integers(FIRST, FIRST + NUM_ORDINARY, length)
    sentences = rng.random(length) < sentence_rate
    words = (rng.random(length) < word_rate) | sentences
    sentences[:1] = words[:1] = True
    number = np.cumsum(sentences) - 1
    gaps = np.zeros(length, dtype=np.bool_)
    if length and number[-1] > 0:  # every third sentence, never all
        gaps = number % 3 == 1
    word = np.cumsum(words) - 1
    knowledge = rng.integers(1, 256, length)[word] if length else np.zeros(0)
    return [ids, words, sentences, gaps, knowledge.astype(np.uint8)]


def samples_of(text: str, **columns: Any) -> Samples:
    """One sample of letters; a space before a letter begins a word, a bar a sentence."""
    ids, words, sentences = [], [], []
    starts_word = starts_sentence = True
    for letter in text:
        if letter in " |":
            starts_word, starts_sentence = True, starts_sentence or letter == "|"
            continue
        ids.append(PIECES.index(letter))
        words.append(starts_word)
        sentences.append(starts_sentence)
        starts_word = starts_sentence = False
    return Samples(
        ids_N=np.array(ids), words_N=np.array(words), sentences_N=np.array(sentences),
        lengths_B=np.array([len(ids)]), sample_ids_B=np.array([0]), passes_B=np.array([0]),
        **columns,
    )  # fmt: skip


def rows_of(samples: Samples) -> list[list[int]]:
    """The ids of each sample."""
    return [part.tolist() for part in np.split(samples.ids_N, np.cumsum(samples.lengths_B)[:-1])]


def documents(inputs: Inputs) -> list[dict[str, Any]]:
    """What a batch holds for each document; targets are pairs of place and id."""
    decodes = inputs.decoder_lengths_B is not None
    side_B = inputs.decoder_lengths_B if decodes else inputs.lengths_B
    starts_B, side_starts_B = (np.cumsum(b) - b for b in (inputs.lengths_B, side_B))
    found = []
    for row, (start, length) in enumerate(zip(starts_B, inputs.lengths_B, strict=True)):
        own = slice(start, start + length)
        side = (side_starts_B[row], side_starts_B[row] + side_B[row])
        is_own = (inputs.target_positions_P >= side[0]) & (inputs.target_positions_P < side[1])
        places = (inputs.target_positions_P[is_own] - side[0]).tolist()
        found.append({
            "ids": inputs.input_ids_N[own].tolist(),
            "targets": list(zip(places, inputs.target_ids_P[is_own].tolist(), strict=True)),
            "types": None if inputs.token_type_ids_N is None else inputs.token_type_ids_N[own].tolist(),
            "decoder": inputs.decoder_ids_M[side[0] : side[1]].tolist() if decodes else None,
            "label": None if inputs.sentence_labels_B is None else int(inputs.sentence_labels_B[row]),
            "weight": None if inputs.sentence_weights_B is None else int(inputs.sentence_weights_B[row]),
        })  # fmt: skip
    return found
