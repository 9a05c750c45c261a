# SPDX-License-Identifier: Apache-2.0
"""Pegasus' gap sentences: those of a sample that say most about the others.

One sentence after the other joins the chosen ones, always the one with which they are most like
the rest (ROUGE-L F1 of their characters, stop words left out), until they have more than a share
of the rest's characters or one sentence remains; if they have become the longer part, the roles are
swapped. Called by the data stage's workers, so that training only reads a bit a token.

A common subsequence is counted with one big integer for the longer text (Hyyrö 2004), so a
candidate costs about as many operations as the chosen sentences have characters. Samples of many
sentences are taken in blocks, which bounds the work for each character.

Source: the procedure of the Randeng-Pegasus pretraining in our own words; stop words, blocks and
comparing characters are our choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyfsb.data.segmenting import RUNS, Cutter

_STOP_WORDS: Final = """
的 了 着 过 地 得 是 在 有 和 与 及 或 而 但 但是 然而 不过 可是 因为 所以 因此 如果 虽然 尽管 并
并且 而且 以及 也 都 就 又 还 再 才 很 更 最 太 非常 十分 已 已经 正在 将 会 能 可以 可能 应该 要
把 被 让 使 给 对 对于 关于 从 向 到 由 由于 于 以 为 为了 按照 根据 通过 这 那 这个 那个 这些
那些 这样 那样 这里 那里 此 该 其 某 每 各 我 你 他 她 它 我们 你们 他们 她们 它们 自己 咱们 人们
大家 谁 什么 怎么 怎样 哪 哪里 哪些 为什么 多少 几 吗 呢 吧 啊 呀 嘛 哦 啦 么 不 没 没有 无 上 下
中 里 内 外 前 后 之 所 者 们 个 种 些 一 一个 一些 一种 等 等等 即 则 且 若 当 时 a an the of to
in on at for and or is are was were be it this that
"""
MAX_BLOCK_SENTENCES: Final = 48
"""A sample of more sentences is taken in blocks of as many."""
STOP_WORDS: Final = frozenset(_STOP_WORDS.split())
"""Words that two sentences may share without being alike."""


def is_gap(
    text: str, sentence_starts: Sequence[int], *, ratio: float, cut: Cutter
) -> NDArray[np.bool_]:
    """Say which sentences of a text are its gap sentences.

    Args:
        text: One sample.
        sentence_starts: Where its sentences begin, ascending, the first at 0.
        ratio: Sentences are chosen until their characters are more than this share of the rest's.
        cut: A word segmenter, to find stop words.

    Returns:
        A boolean a sentence; all False where there is only one.
    """
    bounds = [*sentence_starts, len(text)]
    sentences = [text[start:stop] for start, stop in pairwise(bounds)]
    contents = strip_stop_words(sentences, cut)
    lengths = [len(sentence.strip()) for sentence in sentences]
    found = np.zeros(len(sentences), dtype=np.bool_)
    num_blocks = -(-len(sentences) // MAX_BLOCK_SENTENCES)
    edges = [len(sentences) * number // num_blocks for number in range(num_blocks + 1)]
    for first, last in pairwise(edges):
        chosen = choose_sentences(contents[first:last], lengths[first:last], ratio=ratio)
        found[[first + number for number in chosen]] = True
    return found


def choose_sentences(contents: Sequence[str], lengths: Sequence[int], *, ratio: float) -> list[int]:
    """Return the gap sentences among some, ascending; of equal ones the first.

    Args:
        contents: The sentences without stop words, which are compared.
        lengths: Their characters, which the share is of.
        ratio: Where to stop.
    """
    chosen: set[int] = set()
    blocks = _Blocks(contents)
    while len(chosen) < len(contents) - 1:
        others = [number for number in range(len(contents)) if number not in chosen]
        chosen.add(max(others, key=lambda number: (blocks.score(chosen | {number}), -number)))
        taken = sum(lengths[number] for number in chosen)
        if taken > ratio * (sum(lengths) - taken):
            break
    taken = sum(lengths[number] for number in chosen)
    if taken > sum(lengths) - taken:
        chosen = set(range(len(contents))) - chosen
    return sorted(chosen)


class _Blocks:
    """The characters of sentences as bits of one integer, each sentence a block of bits."""

    def __init__(self, contents: Sequence[str]) -> None:
        self._contents = contents
        self._places: dict[str, int] = {}
        self._bits: list[int] = []
        bit = 1
        for content in contents:
            first = bit
            for character in content:
                self._places[character] = self._places.get(character, 0) | bit
                bit <<= 1
            self._bits.append(bit - first)
        self._all = bit - 1

    def score(self, chosen: set[int]) -> float:
        """Return ROUGE-L F1 of the chosen sentences, in their order, and the others."""
        text = "".join([self._contents[number] for number in sorted(chosen)])
        rest = self._all
        for number in chosen:
            rest -= self._bits[number]
        num_rest = rest.bit_count()
        if not text or not num_rest:
            return 0.0
        # A place of a chosen sentence matches nothing: it stays as it was and lets carries pass.
        row = full = self._all
        for character in text:
            matches = row & self._places[character] & rest
            row = ((row + matches) | (row - matches)) & full
        common = self._all.bit_length() - row.bit_count()
        return 2.0 * common / (len(text) + num_rest)


def strip_stop_words(sentences: Iterable[str], cut: Cutter) -> list[str]:
    """Return the words of sentences that are no stop words, run together and in lower case."""
    found = []
    for sentence in sentences:
        runs = RUNS.findall(sentence)
        words = [word.lower() for word in cut("\n".join(runs))] if runs else []
        found.append("".join([w for w in words if w not in STOP_WORDS]).replace("\n", ""))
    return found
