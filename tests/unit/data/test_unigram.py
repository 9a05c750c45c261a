from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from pyfsb.data.tokenizer_training import sentinel_names, train_byte_bpe, train_unigram
from pyfsb.data.unigram import MAX_PIECE_CHARACTERS, train_pieces
from pyfsb.errors import DataError

SEGMENTS = Counter(
    {"我们学习": 9, "我们": 20, "学习": 15, "们学": 1, "深度学习": 8, "龘": 1, "甲乙": 1}
)


def test_words_that_stand_together_become_pieces() -> None:
    pieces = train_pieces(SEGMENTS, size=12)
    found = [piece for piece, _ in pieces]
    assert len(found) == len(set(found)) <= 12
    assert {"我们", "学习", "我", "们", "学", "习"} <= set(found)
    scores = [score for _, score in pieces]
    assert scores == sorted(scores, reverse=True)
    assert all(score < 0.0 for score in scores)
    assert max(len(piece) for piece in found) <= MAX_PIECE_CHARACTERS


def test_a_small_vocabulary_keeps_the_commonest_characters() -> None:
    assert {piece for piece, _ in train_pieces(Counter({"甲": 9, "乙": 5, "丙": 1}), size=3)} == {
        "甲", "乙",
    }  # fmt: skip


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="holds no text"):
        train_pieces({"": 3}, size=10)
    with pytest.raises(DataError, match="leaves no room"):
        train_unigram(iter(["我们"]), size=261)


PROGRAM = """
import hashlib, sys
from pyfsb.data.tokenizer_training import train_byte_bpe, train_unigram
texts = [f"第{n % 13}章：我们学习word{n % 7}，测试{n % 5}和数据，深度学习的第{n % 3}次。" for n in range(200)]
for train in (train_unigram, train_byte_bpe):
    print(hashlib.md5(train(iter(texts), size=360).to_str().encode()).hexdigest())
"""


def test_training_is_the_same_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PATH": "", "TOKENIZERS_PARALLELISM": parallel},
        ).stdout
        for seed, parallel in (("1", "true"), ("2", "false"))
    }  # fmt: skip
    assert len(found) == 1
    assert len(found.pop().split()) == 2


def test_layouts_are_the_published_ones() -> None:
    unigram = train_unigram(iter(["我们学习 PyTorch"] * 3), size=320, num_sentinels=5)
    names = [unigram.id_to_token(number) for number in range(unigram.get_vocab_size())]
    assert names[:7] == ["<pad>", "</s>", "<unk>", "<s>", "<mask>", "<0x00>", "<0x01>"]
    assert names[-5:] == sentinel_names(5)
    assert names[-1] == "<extra_id_0>"
    assert unigram.encode("我们").ids[-1] == 1
    bpe = train_byte_bpe(iter(["我们学习 PyTorch"] * 3), size=280)
    assert bpe.token_to_id("<|endoftext|>") == 0
    assert bpe.get_vocab_size() <= 280


def test_no_piece_crosses_words_or_kinds_of_characters() -> None:
    texts = ["在2023年学习deep learning，好！"] * 30
    unigram = train_unigram(iter(texts), size=330)
    tokens = unigram.encode(texts[0], add_special_tokens=False).tokens
    shown = "".join(tokens).replace("▁", " ")
    assert shown == texts[0]
    for joined in ("在2", "02", "23", "3年", "习d", "g，", "p▁"):
        assert not any(joined in token for token in tokens), joined
