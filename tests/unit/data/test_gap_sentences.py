from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.data.gap_sentences import (
    MAX_BLOCK_SENTENCES,
    choose_sentences,
    is_gap,
    strip_stop_words,
)
from pyfsb.data.segmenting import load_cutter
from pyfsb.data.sentences import sentence_starts

CUT = load_cutter("rjieba")


def _common(one: str, other: str) -> int:
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=np.int64)
    for row, mine in enumerate(one, start=1):
        for column, theirs in enumerate(other, start=1):
            table[row, column] = (
                table[row - 1, column - 1] + 1
                if mine == theirs
                else max(table[row - 1, column], table[row, column - 1])
            )
    return int(table[-1, -1])


def _naive(contents: list[str], lengths: list[int], ratio: float) -> list[int]:
    """The same with a table for every pair."""
    chosen: list[int] = []
    while len(chosen) < len(contents) - 1:
        best, best_score = -1, -1.0
        for number in range(len(contents)):
            if number in chosen:
                continue
            own = "".join(contents[n] for n in sorted([*chosen, number]))
            rest = "".join(
                contents[n] for n in range(len(contents)) if n not in chosen and n != number
            )
            score = 2.0 * _common(own, rest) / (len(own) + len(rest)) if own and rest else 0.0
            if score > best_score:
                best, best_score = number, score
        chosen.append(best)
        taken = sum(lengths[n] for n in chosen)
        if taken > ratio * (sum(lengths) - taken):
            break
    taken = sum(lengths[n] for n in chosen)
    if taken > sum(lengths) - taken:
        chosen = [n for n in range(len(contents)) if n not in chosen]
    return sorted(chosen)


@given(
    contents=st.lists(st.text(alphabet="甲乙丙丁戊", max_size=12), min_size=1, max_size=8),
    ratio=st.sampled_from([0.1, 0.25, 0.6]),
    added=st.integers(0, 3),
)
@settings(max_examples=300)
def test_the_choice_is_that_of_plain_tables(contents: list[str], ratio: float, added: int) -> None:
    lengths = [len(content) + added for content in contents]
    assert choose_sentences(contents, lengths, ratio=ratio) == _naive(contents, lengths, ratio)


def test_the_sentence_that_says_most_is_chosen() -> None:
    text = "天气很好。小王去公园划船，小李去公园跑步。小王在公园划船。小李在公园跑步。他们很高兴。"
    starts = sentence_starts(text)
    found = is_gap(text, starts, ratio=0.25, cut=CUT)
    assert found.tolist() == [False, True, False, False, False]
    assert is_gap(text, starts, ratio=0.25, cut=load_cutter("jieba")).tolist() == found.tolist()


def test_roles_are_swapped_when_the_summary_is_longer() -> None:
    contents = ["春天花开", "春天花开，夏天日晒，秋天叶落，冬天雪飘"]
    lengths = [len(content) for content in contents]
    assert choose_sentences(contents, lengths, ratio=0.25) == [0]
    assert choose_sentences(contents[::-1], lengths[::-1], ratio=0.25) == [1]


@pytest.mark.parametrize("text", ["只有一句话。", "没有结尾", "。"])
def test_one_sentence_has_no_gap(text: str) -> None:
    assert is_gap(text, sentence_starts(text), ratio=0.25, cut=CUT).tolist() == [False]


def test_a_share_of_every_block_of_a_long_text() -> None:
    sentences = [f"第{n}个人在第{n % 7}号房间学习{'数学语文历史'[n % 5]}。" for n in range(150)]
    text = "".join(sentences)
    found = is_gap(text, sentence_starts(text), ratio=0.25, cut=CUT)
    assert found.size == 150
    for block in np.array_split(found, -(-150 // MAX_BLOCK_SENTENCES)):
        assert 0.15 < block.mean() < 0.3
    assert is_gap(text, sentence_starts(text), ratio=0.25, cut=CUT).tolist() == found.tolist()


def test_stop_words_and_signs_are_not_compared() -> None:
    assert strip_stop_words(["我们的 Paper，和他们的数据！", "……"], CUT) == ["paper数据", ""]
