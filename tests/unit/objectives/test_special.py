from __future__ import annotations

import pytest

from pyfsb.errors import ConfigError
from pyfsb.objectives import SpecialIds

BERT = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "甲", "[", "]", "##乙"]
BART = ["<pad>", "</s>", "<unk>", "<s>", "<mask>", "▁甲", "<0x0A>"]
PEGASUS = ["<pad>", "</s>", "<mask_1>", "<mask_2>", "[SEP]", "[CLS]", "<unk>", "[unused4]", "甲"]


def test_bert() -> None:
    found = SpecialIds.of(BERT)
    assert (found.pad, found.cls, found.sep, found.mask) == (0, 3, 4, 5)
    assert (found.bos, found.eos) == (3, 4)
    assert found.sentinels.size == 0
    assert found.ordinary.tolist() == [7, 8, 9, 10]


def test_megatron_t5_has_its_own_begin_and_end() -> None:
    found = SpecialIds.of([*BERT, "[BOS]", "[EOS]", "<extra_id_0>", "<extra_id_1>"])
    assert (found.cls, found.sep, found.bos, found.eos) == (3, 4, 11, 12)
    assert found.sentinels.tolist() == [14, 13]


def test_bart_with_sentencepiece() -> None:
    found = SpecialIds.of(BART)
    assert (found.pad, found.cls, found.sep, found.mask) == (0, 3, 1, 4)
    assert found.ordinary.tolist() == [5]


def test_pegasus_hides_with_its_sentence_mask() -> None:
    found = SpecialIds.of(PEGASUS)
    assert (found.pad, found.eos, found.mask) == (0, 1, 2)
    assert found.ordinary.tolist() == [8]


def test_t5_counts_sentinels_from_the_top_of_the_vocabulary() -> None:
    names = [f"▁<extra_id_{number}>" for number in reversed(range(100))]
    found = SpecialIds.of(["<pad>", "</s>", "<unk>", "▁甲", *names])
    assert found.sentinels.tolist() == list(range(103, 3, -1))
    assert (found.cls, found.mask, found.bos) == (None, None, None)
    bracketed = SpecialIds.of(["[PAD]", "甲", "[extra_id_0]", "[extra_id_1]"])
    assert bracketed.sentinels.tolist() == [3, 2]


def test_gpt2_has_one_token_for_all() -> None:
    found = SpecialIds.of(["a", "<", ">", "<|endoftext|>"])
    assert {found.bos, found.eos, found.cls, found.sep, found.pad} == {3}
    assert found.mask is None
    assert found.ordinary.tolist() == [0, 1, 2]


def test_llama() -> None:
    found = SpecialIds.of(["<unk>", "<s>", "</s>", "<0x00>", "甲"])
    assert (found.pad, found.bos, found.eos) == (None, 1, 2)


def test_a_missing_token_is_named_with_the_objective() -> None:
    with pytest.raises(ConfigError, match=r"whole_word needs a token \[MASK\] or <mask>"):
        SpecialIds.of(["<pad>", "</s>", "甲"]).need("mask", "whole_word")
