from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyfsb.data.offset_tokenizing import make_tokenizer
from pyfsb.data.segmenting import load_cutter, word_starts
from pyfsb.data.sentences import sentence_starts
from pyfsb.data.tokenizer_files import TokenizerParts, of_backend
from pyfsb.data.tokenizer_training import train_byte_bpe, train_unigram

TEXTS = ["我们在北京学习。", "PyTorch 2.3 is new！", "今天，天气“很好”……我们去公园。"] * 4
TRAINED = {
    "unigram": train_unigram(iter(TEXTS), size=330),
    "byte_bpe": train_byte_bpe(iter(TEXTS), size=330),
}
PARTS = {name: of_backend(one, source=name) for name, one in TRAINED.items()}
TOKENIZERS = {name: make_tokenizer(parts, segmenter="rjieba") for name, parts in PARTS.items()}
MIXED = st.text(
    alphabet="我们在北京学习今天气很好公园，。！“”…abcPyTorch 123龘𠮷😀é\n", max_size=40
)


@pytest.mark.parametrize("kind", PARTS)
@given(text=MIXED)
@settings(max_examples=150)
def test_ids_and_places_are_those_of_the_tokenizer(kind: str, text: str) -> None:
    document = TOKENIZERS[kind].tokenize_batch([text])[0]
    expected = TRAINED[kind].encode(text, add_special_tokens=False)
    assert document.ids.tolist() == expected.ids
    assert TRAINED[kind].decode(document.ids.tolist(), skip_special_tokens=False) == text
    sizes = {array.size for array in (document.word_starts, document.sentence_starts,
                                      document.positions)}  # fmt: skip
    assert sizes == {document.ids.size}
    assert (np.diff(document.positions) >= 0).all()
    assert document.sentence_starts.sum() <= max(1, len(sentence_starts(text)))


@pytest.mark.parametrize("kind", PARTS)
@given(text=MIXED)
@settings(max_examples=150)
def test_a_word_never_begins_inside_a_word(kind: str, text: str) -> None:
    document = TOKENIZERS[kind].tokenize_batch([text])[0]
    begins = word_starts(text, load_cutter("rjieba"))
    for place in document.positions[1:][document.word_starts[1:]].tolist():
        if re.match("[\u4e00-\u9fd5a-zA-Z0-9]", text[place]):
            assert begins[place]


@pytest.mark.parametrize("kind", PARTS)
def test_bytes_of_one_character_are_one_word(kind: str) -> None:
    document = TOKENIZERS[kind].tokenize_batch(["𠮷😀"])[0]
    assert document.ids.size == 8
    assert np.flatnonzero(document.word_starts).tolist() in ([0], [0, 4])
    assert set(document.positions.tolist()) <= {0, 1}


def test_a_space_in_front_belongs_to_its_word() -> None:
    text = "is new new"
    for kind in PARTS:
        document = TOKENIZERS[kind].tokenize_batch([text])[0]
        starts = document.positions[document.word_starts].tolist()
        assert starts == [0, 3, 7], kind


def test_documents_alone_give_the_same_as_together() -> None:
    for kind in PARTS:
        for text, together in zip(TEXTS, TOKENIZERS[kind].tokenize_batch(TEXTS), strict=True):
            alone = TOKENIZERS[kind].tokenize_batch([text])[0]
            assert alone.ids.tolist() == together.ids.tolist()
            assert alone.word_starts.tolist() == together.word_starts.tolist()


def test_words_of_jieba_are_pieces_or_fall_apart() -> None:
    pieces = (
        "<pad>",
        "</s>",
        "<mask_2>",
        "<mask_1>",
        "<unk>",
        "我们",
        "学",
        "习",
        "，",
        "ab",
        "##c",
    )
    parts = TokenizerParts(kind="jieba_wordpiece", pieces=pieces, lowercase=True)
    document = make_tokenizer(parts, segmenter="rjieba").tokenize_batch(["我们学习，ABC我们龘"])[0]
    assert [pieces[number] for number in document.ids] == [
        "我们", "学", "习", "，", "ab", "##c", "我们", "<unk>",
    ]  # fmt: skip
    assert document.word_starts.tolist() == [True, True, False, True, True, False, True, True]
    assert document.positions.tolist() == [0, 2, 3, 4, 5, 7, 8, 10]
    empty = make_tokenizer(parts, segmenter="jieba").tokenize_batch([""])[0]
    assert empty.ids.size == 0
