from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.data.normalizing import normalise_layout, normalise_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ＡＢＣ１２３ａｂ", "ABC123ab"),
        ("你好，世界！（真的？）：；", "你好，世界！（真的？）：；"),
        ("“引号”‘单’……——·《书》、。【】", "“引号”‘单’……——·《书》、。【】"),
        ("①㎡m²½Ⅷ℃㈱", "①㎡m²½Ⅷ℃㈱"),
        ("\uf900\u2f00\u2e9f", "\u8c48\u4e00\u6bcd"),  # compatibility hanzi and Kangxi radicals
        ("繁體與简体", "繁體與简体"),
        ("全角\u3000空格  两个", "全角 空格 两个"),
        ("一\r\n二\r三\u2028四\u0085五\x0b六", "一\n二\n三\n四\n五\n六"),
        ("  首尾 \n\n \n 空行 ", "首尾\n空行"),
        ("零\u200b宽\ufeff与\u00ad控\x07制", "零宽与控制"),
        ("ﬁ ｶﾞ é e\u0301", "fi ガ é é"),
        ("\ud800坏", "坏"),
        ("", ""),
    ],
)
def test_the_stated_rules(text: str, expected: str) -> None:
    assert normalise_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("一\n\n\n二", "一\n\n\n二"),
        ("    if x:\n\ty  = 1\n", "    if x:\n\ty  = 1"),
        ("\n \n\t\n  首\r\n尾  \n\n \t", "  首\n尾"),
        ("\u3000\u3000段\u00a0落\u200b", "  段 落"),
        ("ＡＢ　１\x00", "AB 1"),
        ("列表：\n- 甲\n  - 乙", "列表：\n- 甲\n  - 乙"),
        (" \u200b\n", ""),
    ],
)
def test_layout_stays_where_it_is_wanted(text: str, expected: str) -> None:
    assert normalise_layout(text) == expected


FRAGMENTS = st.sampled_from(
    ["a", "文", "\u200b", "\u0301", "\u3000", "Ａ", "\ufeff", "\u00ad", "ｶ", "ﾞ"]
)


@given(st.one_of(st.text(max_size=60), st.lists(FRAGMENTS, max_size=12).map("".join)))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    kept = normalise_layout(text)
    assert normalise_layout(kept) == kept
    assert normalise_text(kept) == once


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), max_size=40))
def test_hanzi_are_never_touched(text: str) -> None:
    assert normalise_text(text) == text
