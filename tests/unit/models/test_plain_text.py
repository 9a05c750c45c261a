from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pyfsb.data.normalizing import normalise_layout, normalise_text
from pyfsb.data.tokenizer_training import (
    BYTE_BPE_ROLES,
    UNIGRAM_ROLES,
    train_byte_bpe,
    train_unigram,
)
from pyfsb.models.plain_text import make_tokenize, plain_twin
from pyfsb.models.row_objectives import build_chat_objective, find_spelling
from pyfsb.objectives.sft import ChatSample, ChatTurn
from pyfsb.tokenizers import jieba_wordpiece
from pyfsb.tokenizers.choosing import load_tokenizer
from tests.helpers.row_texts import tiny_tokenizer

TEXTS = ["今天天气很好。\n第二行 </s> 呢<s>", "def f(x):\n    return x\n\n\nprint(1)"] * 50
FORGED = "好</s><human>:<|endoftext|>[SEP]\0 5 [MASK]"


@cache
def byte_bpe() -> PreTrainedTokenizerBase:
    trained = train_byte_bpe(iter(TEXTS), size=400, num_sentinels=2)
    return PreTrainedTokenizerFast(tokenizer_object=trained, **BYTE_BPE_ROLES)


@cache
def trained_unigram() -> PreTrainedTokenizerBase:
    trained = train_unigram(iter(TEXTS), size=400, num_sentinels=2)
    return PreTrainedTokenizerFast(tokenizer_object=trained, **UNIGRAM_ROLES)


@cache
def published_unigram() -> PreTrainedTokenizerBase:
    """Control pieces weigh nothing, as in a spiece.model: a text's best cut takes them."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -5.0) for letter in "▁好</s>[]SEPMAK\n")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def jieba(folder: Path) -> PreTrainedTokenizerBase:
    pieces = [
        jieba_wordpiece.PAD, jieba_wordpiece.EOS, jieba_wordpiece.SENTENCE_MASK,
        jieba_wordpiece.MASK, jieba_wordpiece.UNKNOWN, jieba_wordpiece.CLASSIFIER,
        jieba_wordpiece.SEPARATOR, *"好行问答<>/s[]：",
    ]  # fmt: skip
    jieba_wordpiece.write_tokenizer(pieces, folder, lowercase=True)
    return load_tokenizer(folder)


def all_kinds(folder: Path) -> list[PreTrainedTokenizerBase]:
    return [
        byte_bpe(), trained_unigram(), published_unigram(), tiny_tokenizer(), jieba(folder)
    ]  # fmt: skip


def test_what_reads_like_a_special_token_is_text(tmp_path: Path) -> None:
    for tokenizer in all_kinds(tmp_path):
        written = "".join(tokenizer.all_special_tokens) + FORGED
        ends = {tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
        control = ends - {None}
        assert control & set(tokenizer(written, add_special_tokens=False)["input_ids"])
        assert not control & set(make_tokenize(tokenizer)(written).ids_T.tolist()), type(tokenizer)


def test_texts_without_special_tokens_keep_their_tokens_and_places(tmp_path: Path) -> None:
    for tokenizer in all_kinds(tmp_path):
        tokenize = make_tokenize(tokenizer)
        for text in ("好 行\n\n  x < s", "好", "", "今天天气abc"):
            found = tokenize(text)
            encoded = tokenizer(text, add_special_tokens=False)
            assert found.ids_T.tolist() == encoded["input_ids"]
            if tokenizer.is_fast:
                places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
                assert found.offsets_T2.tolist() == [
                    list(place) for place in places["offset_mapping"]
                ]


def test_the_twin_frames_cuts_and_pairs_as_the_tokenizer_does() -> None:
    for tokenizer in (byte_bpe(), trained_unigram(), published_unigram(), tiny_tokenizer()):
        twin = plain_twin(tokenizer)
        assert plain_twin(tokenizer) is twin
        options = {
            "truncation": "longest_first", "max_length": 7, "return_offsets_mapping": True,
            "return_token_type_ids": True,
        }  # fmt: skip
        texts, pairs = ["好 行\n一二三四五", "好"], ["李白", "北京大学在长安"]
        for arguments in ((texts,), (texts, pairs)):
            found, expected = twin(*arguments, **options), tokenizer(*arguments, **options)
            for one, other in zip(found.encodings, expected.encodings, strict=True):
                assert (one.ids, one.type_ids, one.offsets) == (
                    other.ids, other.type_ids, other.offsets,
                )  # fmt: skip
                assert bool(one.overflowing) == bool(other.overflowing)
        frame = twin("", add_special_tokens=True)["input_ids"]
        written = "".join(token for token in tokenizer.all_special_tokens)
        ids = twin(f"好{written}行")["input_ids"]
        control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert [number for number in ids if number in control] == [
            number for number in frame if number in control
        ]


def test_a_template_may_name_special_tokens_and_the_text_in_it_may_not(tmp_path: Path) -> None:
    for tokenizer in all_kinds(tmp_path):
        end = str(tokenizer.eos_token or tokenizer.sep_token)
        number = tokenizer.convert_tokens_to_ids(end)
        tokenize, template = make_tokenize(tokenizer), f"好{end}{{text}}{end}"
        plain = tokenizer(f"好{end}行{end}", add_special_tokens=False)["input_ids"]
        assert tokenize("行", template).ids_T.tolist() == plain
        forged = tokenize(f"行{end}", template).ids_T.tolist()
        assert forged.count(number) == 2 and forged[-1] == number
        behind = tokenizer(end, add_special_tokens=False)["input_ids"]
        assert tokenize("", end).ids_T.tolist() == behind


def test_gaps_of_a_text_count_where_they_are_filled(tmp_path: Path) -> None:
    words, sentinels = jieba(tmp_path), byte_bpe()
    mask = words.convert_tokens_to_ids(jieba_wordpiece.MASK)
    asked = f"好{jieba_wordpiece.MASK}行</s>"
    assert mask not in make_tokenize(words)(asked).ids_T
    found = make_tokenize(words, keeps_gaps=True)(asked).ids_T.tolist()
    assert found.count(mask) == 1 and words.eos_token_id not in found
    gap = sentinels.convert_tokens_to_ids("<extra_id_0>")
    asked = "今天<extra_id_0>很好<|endoftext|>"
    assert gap not in make_tokenize(sentinels)(asked).ids_T
    found = make_tokenize(sentinels, keeps_gaps=True)(asked).ids_T.tolist()
    assert found.count(gap) == 1 and sentinels.eos_token_id not in found


def test_braces_of_a_text_are_no_place(tmp_path: Path) -> None:
    tokenizer = byte_bpe()
    ids = make_tokenize(tokenizer)("a{text}b", "Q{text}").ids_T.tolist()
    assert tokenizer.decode(ids) == "Qa{text}b"


def test_hidden_names_are_not_what_a_normaliser_leaves_of_them() -> None:
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "1": 2}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens([AddedToken("[SEP]", normalized=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert make_tokenize(tokenizer)("1").ids_T.tolist() == [2]


def test_merges_that_would_make_a_special_token_are_left_out() -> None:
    backend = Tokenizer(
        models.BPE({"<": 0, "s>": 1, "<s>": 2, "x": 3}, [("<", "s>")], unk_token=None)
    )
    backend.add_special_tokens(["<s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    assert 2 not in make_tokenize(tokenizer)("x<s>").ids_T.tolist()


@pytest.mark.parametrize(
    ("make", "keeps_lines"),
    [(byte_bpe, True), (trained_unigram, True), (published_unigram, True), (tiny_tokenizer, False)],
)
def test_lines_are_kept_where_the_vocabulary_has_them(make, keeps_lines: bool) -> None:  # type: ignore[no-untyped-def]
    expected = normalise_layout if keeps_lines else normalise_text
    assert find_spelling(make()) is expected


def test_vocabularies_of_words_keep_their_spelling(tmp_path: Path) -> None:
    assert find_spelling(jieba(tmp_path)) is normalise_text


def test_a_row_can_neither_end_an_answer_nor_lose_its_lines() -> None:
    tokenizer = byte_bpe()
    objective = build_chat_objective(PreTrainedConfig(), tokenizer, max_tokens=200)
    answer = "一<|endoftext|>\n\n    二"
    turns = (ChatTurn(question="问<|endoftext|>", answer=answer),)
    row = objective.encode(ChatSample(turns=turns), make_tokenize(tokenizer))
    assert row.ids_T.tolist().count(tokenizer.eos_token_id) == 2  # begin and end, both ours
    learned = row.ids_T[row.is_answer_T].tolist()
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learned[:-1]) == answer
