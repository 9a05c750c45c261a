from __future__ import annotations

import numpy as np
import pytest

from pyfsb.config.corpus_sections import KnowledgeSpec
from pyfsb.data.knowledge import (
    RARE_DOCUMENTS,
    WordWeights,
    count_documents,
    load_tags,
    weigh_tokens,
)
from pyfsb.data.segmenting import cut_runs, load_cutter, word_starts
from pyfsb.data.tokenizing import DocumentTokenizer
from pyfsb.data.vocabulary import train_vocabulary

CUT = load_cutter("rjieba")
TEXT = "北京大学的学生学习PyTorch 2023年，一心一意地researching，的确 café！"
TAGS = load_tags()


def _weights(documents: dict[str, int] | None = None, **weights: float) -> WordWeights:
    spec = KnowledgeSpec(**weights)
    return WordWeights(spec, tags=TAGS, documents=documents or {}, num_documents=100)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("的", {}),
        ("北京", {"entity": 1, "content": 1}),
        ("学习", {"content": 1}),
        ("一心一意", {"idiom": 1, "content": 1}),
        ("2023", {"content": 1}),
        ("PyTorch", {"content": 1}),
        ("中华人民共和国", {"entity": 1, "idiom": 1, "content": 1}),
        ("李", {"content": 1}),
        ("马上", {}),
    ],
)
def test_each_part_of_the_sum(word: str, expected: dict[str, int]) -> None:
    names = ("entity", "idiom", "content")
    for name in names:
        zero = dict.fromkeys((*names, "rarity"), 0.0)
        assert _weights(**{**zero, name: 3.0}).weigh(word) == 1.0 + 3.0 * expected.get(name, 0)


def test_rarity_goes_from_everywhere_to_nowhere() -> None:
    weights = _weights({"公园": 100, "学习": 30, "北京": RARE_DOCUMENTS, "PYTORCH".lower(): 50})
    found = [weights.rarity(word) for word in ("公园", "学习", "北京", "没有的词")]
    assert found == [0.0, pytest.approx(np.log(100 / 30) / np.log(20)), 1.0, 1.0]
    assert weights.rarity("PyTorch") == weights.rarity("pytorch")
    few = WordWeights(KnowledgeSpec(), tags=TAGS, documents={}, num_documents=3)
    assert few.rarity("学习") == 0.0


def test_weights_are_bytes_of_the_largest_sum() -> None:
    weights = _weights(entity=1.0, idiom=1.0, rarity=1.0, content=1.0)
    assert weights.least == 51
    assert weights["中华人民共和国"] == 255  # rare, too: it is in no document
    assert min(_weights(entity=100.0)[word] for word in ("的", "，")) >= 1


def test_documents_are_counted_once_a_text() -> None:
    texts = ["学习学习 PyTorch"] * 7 + ["学习北京"] * RARE_DOCUMENTS
    counts, num_texts = count_documents(texts, CUT)
    assert num_texts == 12
    assert counts == {"学习": 12, "pytorch": 7}


def test_words_come_with_their_places() -> None:
    found = list(cut_runs(TEXT, CUT))
    assert all(TEXT[start : start + len(word)] == word for start, word in found)
    assert [start for start, _ in found] == np.flatnonzero(word_starts(TEXT, CUT)).tolist()
    assert list(cut_runs("，。 ！", CUT)) == []


def test_all_tokens_of_a_word_weigh_the_same() -> None:
    pieces = train_vocabulary([TEXT, "re ##search"] * 2, size=120, lowercase=True)
    tokenizer = DocumentTokenizer(pieces, lowercase=True, cut=CUT)
    document = tokenizer.tokenize(TEXT)
    weights = _weights()
    found = weigh_tokens(TEXT, document.positions, document.word_starts, weights=weights, cut=CUT)
    starts = np.flatnonzero(document.word_starts).tolist()
    words = dict(cut_runs(TEXT, CUT))
    for start, stop in zip(starts, [*starts[1:], found.size], strict=True):
        word = words.get(int(document.positions[start]))
        expected = weights[word] if word else weights.least
        assert set(found[start:stop].tolist()) == {expected}
    assert [TEXT[place] for place in document.positions[:6]] == list("北京大学的学")


def test_a_token_over_several_words_has_the_largest_weight() -> None:
    text = "的北京"
    weights = _weights()
    bits = np.array([True])
    found = weigh_tokens(text, np.array([0]), bits, weights=weights, cut=CUT)
    assert found.tolist() == [weights["北京"]]
    empty = np.empty(0, dtype=np.int64)
    assert not weigh_tokens("", empty, empty.astype(bool), weights=weights, cut=CUT).size


def test_the_dictionary_is_jiebas() -> None:
    assert len(TAGS) > 300_000
    assert TAGS["北京"] == "ns"
