"""A cut tokenizer gives the same pieces wherever it still has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pyfsb.errors import ConfigError
from pyfsb.tokenizers.choosing import load_tokenizer
from pyfsb.tokenizers.vocabulary_cut import choose_kept, count_ids, cut_vocabulary
from tests.helpers.tokenizers import TEXTS, write_byte_bpe, write_sentencepiece, write_wordpiece
from tests.unit.tokenizers.test_choosing import SENTINELS, write_t5

USED = TEXTS[:3]


def open_t5(folder: Path) -> Tokenizer:
    return load_tokenizer(write_t5(folder)).backend_tokenizer


@pytest.mark.parametrize("kind", ["t5", "wordpiece"])
def test_texts_that_need_only_kept_pieces_give_the_same(kind: str, tmp_path: Path) -> None:
    folder = write_t5(tmp_path) if kind == "t5" else write_wordpiece(tmp_path, "bert")
    old = load_tokenizer(folder).backend_tokenizer
    keep = choose_kept(count_ids(old, USED), 10_000)
    cut = cut_vocabulary(old, keep)
    assert len(cut.kept_ids) == cut.tokenizer.get_vocab_size() < old.get_vocab_size()
    assert list(cut.kept_ids) == sorted(cut.kept_ids)
    for new, before in enumerate(cut.kept_ids):
        assert cut.tokenizer.id_to_token(new) == old.id_to_token(before)
    for text in USED:
        before, after = old.encode(text), cut.tokenizer.encode(text)
        assert after.tokens == before.tokens
        assert [cut.kept_ids[number] for number in after.ids] == before.ids
        assert cut.tokenizer.decode(after.ids) == old.decode(before.ids)
    assert cut.tokenizer.encode("hello").ids != old.encode("hello").ids


def test_sentinels_and_special_tokens_stay_and_stay_last(tmp_path: Path) -> None:
    folder = write_sentencepiece(tmp_path, "t5", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    old = load_tokenizer(folder).backend_tokenizer
    cut = cut_vocabulary(old, [])
    size = cut.tokenizer.get_vocab_size()
    assert size == 103
    assert cut.tokenizer.token_to_id("<extra_id_0>") == size - 1
    assert [cut.tokenizer.id_to_token(number) for number in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert cut.tokenizer.encode("今").ids[-1] == 1


def test_sentinels_inside_the_model_stay(tmp_path: Path) -> None:
    cut = cut_vocabulary(open_t5(tmp_path), [])
    assert all(cut.tokenizer.token_to_id(token) is not None for token in SENTINELS)


def test_choosing_takes_the_commonest_and_breaks_ties_low() -> None:
    assert choose_kept({5: 1, 3: 9, 4: 1, 9: 4}, 3) == [3, 4, 9]


def test_what_cannot_be_cut(tmp_path: Path) -> None:
    bpe = load_tokenizer(write_byte_bpe(tmp_path / "bpe")).backend_tokenizer
    with pytest.raises(ConfigError, match="a BPE vocabulary cannot be cut"):
        cut_vocabulary(bpe, [1])
    with pytest.raises(ConfigError, match="id 99999 is to be kept"):
        cut_vocabulary(open_t5(tmp_path / "t5"), [99999])
