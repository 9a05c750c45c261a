from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.data.sentences import sentence_starts, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("今天好。明天呢？好！", ["今天好。", "明天呢？", "好！"]),
        ("真的吗？！是的……好", ["真的吗？！", "是的……", "好"]),
        ("他说：“好。走吧。”然后走了。", ["他说：“好。走吧。”", "然后走了。"]),
        ("（完。）第一；第二。", ["（完。）", "第一；", "第二。"]),
        ("标题\n正文。\n\n尾", ["标题\n", "正文。\n\n", "尾"]),
        ("版本3.5很好。It works. Really", ["版本3.5很好。", "It works.", " Really"]),
        ("没有终止", ["没有终止"]),
        ("“从不关上的引号。第二句。第三句。", ["“从不关上的引号。", "第二句。", "第三句。"]),
        ("", []),
    ],
)
def test_chinese_rules(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(alphabet="一二。！？…“”（）\n ；.A", max_size=80))
def test_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(split_sentences(text)) == text
    starts = sentence_starts(text)
    assert starts == sorted(set(starts))
    assert all(0 <= start < len(text) for start in starts)
