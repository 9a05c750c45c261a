from __future__ import annotations

import re

import jieba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.data.segmenting import load_cutter, word_starts
from pyfsb.data.tokenizing import CJK_RANGES, DocumentTokenizer, cut_samples
from pyfsb.data.vocabulary import SPECIAL_TOKENS, build_tokenizer, train_vocabulary

TEXT = "我们在北京学习PyTorch 2.3和深度学习，《论语》说：“学而时习之！” iPhone手机T恤 café ㎡①é"
PIECES = train_vocabulary([TEXT, "习之学而" * 5, "abc def 123"] * 2, size=160, lowercase=True)
TOKENIZER = DocumentTokenizer(PIECES, lowercase=True, cut=load_cutter("rjieba"))
REFERENCE = build_tokenizer(PIECES, lowercase=True)
MIXED = st.text(
    alphabet=st.one_of(
        st.sampled_from("我们学习，。！“”abcDEF123 \n①é囧㎡ガк"),
        st.characters(blacklist_categories=["Cs"], max_codepoint=0x2FFFF),
    ),
    max_size=50,
)


SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


@settings(max_examples=400)
@given(MIXED.filter(lambda text: not SPECIAL.search(text)))
def test_ids_are_exactly_those_of_tokenizers(text: str) -> None:
    expected = REFERENCE.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.tokenize(text).ids.tolist() == expected


def test_a_document_cannot_write_special_tokens() -> None:
    ids = TOKENIZER.tokenize("我[SEP]们[MASK]").ids.tolist()
    assert not {PIECES.index("[SEP]"), PIECES.index("[MASK]")} & set(ids)


def test_every_assigned_code_point_alone_and_between_letters() -> None:
    points = [p for p in range(0x20, 0x30000) if not 0xD800 <= p < 0xE000]
    for start in range(0, len(points), 4096):
        block = points[start : start + 4096]
        text = "".join(f"a{chr(point)}b " for point in block)
        expected = REFERENCE.encode(text, add_special_tokens=False).ids
        assert TOKENIZER.tokenize(text).ids.tolist() == expected, hex(block[0])


def test_the_cjk_ranges_are_those_of_the_normaliser() -> None:
    normalizer = build_tokenizer(PIECES, lowercase=False).normalizer
    for low, high in CJK_RANGES:
        for point in (low, (low + high) // 2, high):
            assert normalizer.normalize_str(f"a{chr(point)}a").count(" ") == 2, hex(point)


def test_words_are_those_of_jieba() -> None:
    document = TOKENIZER.tokenize(TEXT)
    shown = "".join(
        ("|" if starts else "") + PIECES[token].removeprefix("##")
        for token, starts in zip(document.ids, document.word_starts, strict=True)
    )
    assert shown.startswith(
        "|我们|在|北京|学习|pytorch|2|.|3|和|深度|学习|，|《|论语|》|说|：|“|学而|"
    )
    assert "|iphone|手机|t恤|" in shown


@given(st.text(alphabet="我们中国人民大学生学习abc12。， ", max_size=40))
@settings(max_examples=150, deadline=None)
def test_both_segmenters_cut_alike(text: str) -> None:
    fast, reference = load_cutter("rjieba"), load_cutter("jieba")
    assert word_starts(text, fast).tolist() == word_starts(text, reference).tolist()


def test_word_starts_match_jieba_word_by_word() -> None:
    text = "南京市长江大桥欢迎你。小明硕士毕业于中国科学院计算所"
    starts = np.flatnonzero(word_starts(text, load_cutter("rjieba"))).tolist()
    expected, position = [], 0
    for run in re.split("(。)", text):
        if run != "。":
            for word in jieba.lcut(run):
                expected.append(position)
                position += len(word)
        else:
            position += 1
    assert starts == expected


def test_pieces_inside_a_word_never_begin_one() -> None:
    pieces = [*PIECES[:5], "torch", "##ing", "测", "试"]
    tokenizer = DocumentTokenizer(pieces, lowercase=True, cut=load_cutter("rjieba"))
    document = tokenizer.tokenize("torching 测试")
    assert [pieces[token] for token in document.ids] == ["torch", "##ing", "测", "试"]
    inside = [pieces[token].startswith("##") for token in document.ids]
    assert any(inside)
    assert not any(np.array(inside) & document.word_starts)


@settings(max_examples=200)
@given(st.lists(MIXED, min_size=1, max_size=6))
def test_documents_together_give_the_same_as_alone(texts: list[str]) -> None:
    for together, alone in zip(
        TOKENIZER.tokenize_batch(texts), map(TOKENIZER.tokenize, texts), strict=True
    ):
        assert together.ids.tolist() == alone.ids.tolist()
        assert together.word_starts.tolist() == alone.word_starts.tolist()
        assert together.sentence_starts.tolist() == alone.sentence_starts.tolist()


def test_an_empty_document_has_no_tokens() -> None:
    document = TOKENIZER.tokenize("")
    assert document.ids.size == document.word_starts.size == 0
    assert cut_samples(document, 10) == []


@given(st.text(alphabet="我们学习。！\nab ", max_size=300), st.integers(6, 40))
def test_samples_cover_the_document_and_are_short(text: str, max_tokens: int) -> None:
    document = TOKENIZER.tokenize(text)
    starts = cut_samples(document, max_tokens)
    assert starts == sorted(set(starts))
    assert starts[:1] == ([0] if document.ids.size else [])
    lengths = np.diff([*starts, document.ids.size])
    assert all(0 < length <= max_tokens for length in lengths) or not starts


def test_samples_end_where_sentences_do() -> None:
    document = TOKENIZER.tokenize("我们学习。" * 10)
    assert cut_samples(document, 12) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("text", ["我" * 30, "学习" * 15])
def test_a_long_sentence_is_cut_at_words(text: str) -> None:
    document = TOKENIZER.tokenize(text)
    for start in cut_samples(document, 7):
        assert document.word_starts[start]
