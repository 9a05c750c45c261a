"""The data stage with every kind of tokenizer and every column, from raw text to shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

import pyfsb.tokenizers.registration  # noqa: F401
from pyfsb import records
from pyfsb.config import RunSpec, resolve_spec
from pyfsb.data.corpus_tokenizer import EXTENSION_NAME, build_tokenizer_folder
from pyfsb.data.prepare import prepare
from pyfsb.data.shards import NUM_SPECIAL_TOKENS, Shards
from pyfsb.data.tokenizer_files import open_tokenizer, read_pieces_of, read_specials
from pyfsb.data.vocabulary import vocabulary_digest, write_tokenizer
from pyfsb.data.wanted import complete_data
from pyfsb.errors import ConfigError, DataError
from pyfsb.records import DatasetRecord
from tests.helpers.specs import tiny_spec

TEXTS = [
    "今天天气很好，我们去公园玩。公园里有很多人，他们在唱歌。我们玩到天黑才回家。",
    "机器学习需要很多数据！深度学习用PyTorch 2.3训练模型。学习北京大学的课程，数据越多越好。",
    "他说：“走吧。”于是大家都走了……留下空荡荡的教室。大家明天再来。",
    "小明硕士毕业于中国科学院计算所，后在日本京都大学深造。他研究深度学习。",
] * 6
HARD = "全角，标点：《论语》“引号”‘单’——破折号…… Latin café 123456 😀👨‍👩‍👧 𠮷野家 龘靐 ①㎡"
KINDS = ("wordpiece", "unigram", "byte_bpe", "jieba_wordpiece")


def write_texts(folder: Path, texts: list[str] = TEXTS) -> None:
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps({"text": f"{text}第{number}篇。"}, ensure_ascii=False)
        for number, text in enumerate(texts)
    ]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def spec_of(tmp_path: Path, name: str = "out", **changes: Any) -> RunSpec:
    write_texts(tmp_path / "raw")
    fields = {"data__root": str(tmp_path / "raw"), "data__corpus": ["*.jsonl"], **changes}
    value = tiny_spec(tmp_path / name, **fields)
    if "objective" in fields:
        value["objective"] = {"name": fields.pop("objective")}
    return resolve_spec(yaml.safe_dump(value))


def corpus_of(record: DatasetRecord, spec: RunSpec) -> tuple[Path, Shards]:
    folder = Path(spec.output) / "data/corpus"
    records.verify_files(record.files, folder)
    return folder, Shards.open(folder, verify=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_shards_and_a_folder_that_loads(kind: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, data__vocabulary={"kind": kind, "size": 600})
    record = prepare(spec)[0]
    folder, shards = corpus_of(record, spec)
    pieces = read_pieces_of(folder / "tokenizer")
    assert record.vocabulary_digest == vocabulary_digest(pieces) == shards.index.vocabulary_digest
    assert record.tokenizer == open_tokenizer(folder / "tokenizer").kind
    assert record.columns == shards.index.columns == ("sentences",)
    loaded = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert [loaded.convert_ids_to_tokens(number) for number in range(len(pieces))] == pieces
    first = TEXTS[0] + "第0篇。"
    found, position = [], 0
    while len(found) < len(loaded.encode(first, add_special_tokens=False)):
        found += shards.read(position)[0].tolist()
        position += 1
    assert found == loaded.encode(first, add_special_tokens=False)
    for role, token in read_specials(folder / "tokenizer").items():
        assert getattr(loaded, f"{role}_token") == token
        assert token in pieces


@pytest.mark.parametrize("kind", ["unigram", "byte_bpe"])
def test_texts_come_back_as_they_were(kind: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, data__vocabulary={"kind": kind, "size": 600})
    folder = tmp_path / "tokenizer"
    build_tokenizer_folder(lambda: iter(TEXTS), complete_data(spec).model_copy(), folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    for text in (HARD, " 前有空格", "行一\n行二", *TEXTS[:4]):
        ids = loaded.encode(text, add_special_tokens=False)
        assert loaded.decode(ids) == text
    loaded.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again(HARD)["input_ids"] == loaded(HARD)["input_ids"]


@pytest.mark.parametrize("kind", ["wordpiece", "jieba_wordpiece"])
def test_word_pieces_come_back_but_for_spaces(kind: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, data__vocabulary={"kind": kind, "size": 600})
    folder = tmp_path / "tokenizer"
    build_tokenizer_folder(lambda: iter([*TEXTS, *[HARD] * 3]), complete_data(spec), folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    text = "全角，标点：《论语》“引号”——……深度学习123龘靐𠮷野家"
    decoded = loaded.decode(loaded.encode(text, add_special_tokens=False))
    assert decoded.replace(" ", "") == text


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_shards_are_the_same_every_time(kind: str, tmp_path: Path) -> None:
    columns = ["gaps", "knowledge"]
    digests = {
        prepare(
            spec_of(
                tmp_path, f"out{count}", data__num_processes=count, data__columns=columns,
                data__vocabulary={"kind": kind, "size": 600},
            )
        )[0].digest
        for count in (1, 2)
    }  # fmt: skip
    assert len(digests) == 1


def test_words_and_sentences_are_those_of_the_text(tmp_path: Path) -> None:
    shown = {}
    for kind in KINDS:
        spec = spec_of(tmp_path, kind, data__vocabulary={"kind": kind, "size": 600})
        folder, shards = corpus_of(prepare(spec)[0], spec)
        pieces = read_pieces_of(folder / "tokenizer")
        ids, words = shards.read(0)
        sentences = shards.read_columns(np.array([0]), ["sentences"])["sentences"]
        assert words[0]
        assert sentences[0]
        assert not (sentences & ~words).any()
        shown[kind] = (int(sentences.sum()), [pieces[number] for number in ids])
    assert [count for count, _ in shown.values()] == [4, 4, 4, 4]
    assert shown["jieba_wordpiece"][1][:4] == ["今天天气", "很", "好", "，"]


def test_columns_follow_the_objective(tmp_path: Path) -> None:
    for objective, column in (("gap_sentences", "gaps"), ("knowledge_masking", "knowledge")):
        spec = spec_of(tmp_path, objective, objective=objective)
        record = prepare(spec)[0]
        assert record.columns == ("sentences", column)
        _, shards = corpus_of(record, spec)
        found = shards.read_columns(np.arange(len(shards)), [column])[column]
        ids, words, _ = shards.read_many(np.arange(len(shards)))
        assert found.size == ids.size
        if column == "gaps":
            assert 0.1 < found.mean() < 0.5
        else:
            assert found.min() > 0
            assert found.dtype == np.uint8
            inside = ~words[1:]
            assert np.array_equal(found[1:][inside], found[:-1][inside])
    with pytest.raises(ConfigError, match=r"objective gap_sentences of .* needs gaps"):
        prepare(spec_of(tmp_path, "wrong", objective="gap_sentences", data__columns=["knowledge"]))


def test_names_weigh_more_than_particles(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, objective="knowledge_masking")
    folder, shards = corpus_of(prepare(spec)[0], spec)
    pieces = read_pieces_of(folder / "tokenizer")
    ids, words, _ = shards.read_many(np.arange(len(shards)))
    weights = shards.read_columns(np.arange(len(shards)), ["knowledge"])["knowledge"]
    starts = np.flatnonzero(words)
    by_word = {
        "".join(pieces[number] for number in ids[start:stop]): int(weights[start])
        for start, stop in zip(starts, [*starts[1:], ids.size], strict=True)
    }
    assert by_word["北京大学"] > by_word["公园"] > by_word["的"] >= by_word["，"]


def test_gap_sentences_are_whole(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, objective="gap_sentences")
    _, shards = corpus_of(prepare(spec)[0], spec)
    for sample in range(len(shards)):
        found = shards.read_columns(np.array([sample]), ["sentences", "gaps"])
        sentences = np.cumsum(found["sentences"])
        for number in set(sentences.tolist()):
            assert len(set(found["gaps"][sentences == number].tolist())) == 1


def test_joined_documents_fill_every_sample(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path, data__concatenate=True, data__max_tokens=20, data__shard_tokens=300,
        objective="span_corruption", data__vocabulary={"kind": "unigram", "size": 600},
    )  # fmt: skip
    record = prepare(spec)[0]
    folder, shards = corpus_of(record, spec)
    pieces = read_pieces_of(folder / "tokenizer")
    ids, _, lengths = shards.read_many(np.arange(len(shards)))
    assert set(lengths[:-1].tolist()) == {20 - NUM_SPECIAL_TOKENS}
    assert lengths[-1] <= 20 - NUM_SPECIAL_TOKENS
    end = pieces.index("</s>")
    assert (ids == end).sum() == record.num_kept == len(TEXTS)
    assert pieces[-1] == "<extra_id_0>"
    assert pieces[-100] == "<extra_id_99>"
    loaded = AutoTokenizer.from_pretrained(folder / "tokenizer")
    texts = loaded.decode(ids[: np.flatnonzero(ids == end)[0]].tolist())
    assert texts == TEXTS[0] + "第0篇。"
    assert loaded.encode("<extra_id_3>", add_special_tokens=False) == [len(pieces) - 4]


def test_sentinels_stand_behind_word_pieces_too(tmp_path: Path) -> None:
    vocabulary = {"kind": "wordpiece", "size": 300, "num_sentinels": 4}
    spec = spec_of(tmp_path, data__vocabulary=vocabulary)
    folder = tmp_path / "tokenizer"
    pieces = build_tokenizer_folder(lambda: iter(TEXTS), complete_data(spec), folder)
    assert pieces[-6:] == ["[BOS]", "[EOS]", *(f"<extra_id_{n}>" for n in (3, 2, 1, 0))]
    loaded = AutoTokenizer.from_pretrained(folder)
    assert (loaded.bos_token, loaded.eos_token, loaded.mask_token) == ("[BOS]", "[EOS]", "[MASK]")
    ids = loaded.encode("天气<extra_id_1>很好[EOS]", add_special_tokens=False)
    assert [ids[2], ids[-1]] == [pieces.index("<extra_id_1>"), pieces.index("[EOS]")]
    assert read_pieces_of(folder) == pieces
    assert open_tokenizer(folder).backend is None


def test_a_document_cannot_write_special_tokens(tmp_path: Path) -> None:
    text = "他写下</s>和<extra_id_0>还有<pad>以及<|endoftext|>和[MASK]。"
    for kind in KINDS:
        folder = tmp_path / kind
        write_texts(tmp_path / "raw", [text] * 3)
        spec = spec_of(tmp_path, kind, data__vocabulary={"kind": kind, "size": 600})
        write_texts(tmp_path / "raw", [text] * 3)
        prepare(spec)
        shards = Shards.open(folder / "data/corpus")
        loaded = AutoTokenizer.from_pretrained(folder / "data/corpus/tokenizer")
        ids = shards.read_many(np.arange(len(shards)))[0]
        special = set(loaded.all_special_ids) - {loaded.unk_token_id}
        assert not special & set(ids.tolist()), kind


def test_a_given_tokenizer_is_taken_as_it_is(tmp_path: Path) -> None:
    first = spec_of(tmp_path, "first", data__vocabulary={"kind": "byte_bpe", "size": 400})
    given = Path(first.output) / "data/corpus/tokenizer"
    one = prepare(first)[0]
    spec = spec_of(tmp_path, "second", data__tokenizer=str(given), data__vocabulary={})
    two = prepare(spec)[0]
    assert one.vocabulary_digest == two.vocabulary_digest
    assert [file.path for file in two.inputs][1:] == [
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    ]  # fmt: skip
    folder, shards = corpus_of(two, spec)
    assert shards.read(0)[0].tolist() == Shards.open(given.parent).read(0)[0].tolist()
    assert (folder / "tokenizer/tokenizer.json").read_bytes() == (
        given / "tokenizer.json"
    ).read_bytes()
    with pytest.raises(DataError, match="no such folder"):
        prepare(spec_of(tmp_path, "third", data__tokenizer=str(tmp_path / "no"),
                        data__vocabulary={}))  # fmt: skip


def test_published_layouts_are_read(tmp_path: Path) -> None:
    prepare(spec_of(tmp_path, "first", data__vocabulary={"kind": "byte_bpe", "size": 400}))
    given = tmp_path / "first/data/corpus/tokenizer"
    model = json.loads((given / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    assert read_pieces_of(folder) == read_pieces_of(given)
    spec = spec_of(tmp_path, "second", data__tokenizer=str(folder), data__vocabulary={})
    corpus, shards = corpus_of(prepare(spec)[0], spec)
    assert shards.read(0)[0].tolist() == Shards.open(given.parent).read(0)[0].tolist()
    loaded = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    assert loaded.decode(loaded.encode(HARD)) == HARD
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no tokenizer; expected tokenizer.json"):
        read_pieces_of(empty)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_sentencepiece_file_gives_the_ids_of_its_library(model_type: str, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "spm"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(folder / "spiece"), vocab_size=105,
        model_type=model_type, minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        num_threads=1,
    )  # fmt: skip
    (folder / "config.json").write_text('{"model_type": "t5", "d_model": 8}')
    spec = spec_of(tmp_path, data__tokenizer=str(folder), data__vocabulary={})
    corpus, shards = corpus_of(prepare(spec)[0], spec)
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    expected = library.encode(TEXTS[0] + "第0篇。")
    found = shards.read_many(np.arange(2))[0].tolist()
    assert found[: len(expected)] == expected[: len(found)]
    names = [library.id_to_piece(number) for number in range(library.get_piece_size())]
    assert read_pieces_of(corpus / "tokenizer") == names
    assert (corpus / "tokenizer/spiece.model").read_bytes() == (
        folder / "spiece.model"
    ).read_bytes()


def test_a_bert_folder_takes_the_fast_path(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "今", "天", "abc", "##d"]
    write_tokenizer(pieces, tmp_path / "bert", lowercase=False)
    parts = open_tokenizer(tmp_path / "bert")
    assert (parts.kind, parts.backend, parts.lowercase) == ("wordpiece", None, False)
    (tmp_path / "bert/tokenizer.json").unlink()
    assert open_tokenizer(tmp_path / "bert") == parts
    assert list(parts.pieces) == pieces


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_is_extended_behind_its_pieces(kind: str, tmp_path: Path) -> None:
    first = spec_of(tmp_path, "first", data__vocabulary={"kind": kind, "size": 500})
    base = prepare(first)[0]
    given = Path(first.output) / "data/corpus/tokenizer"
    old = read_pieces_of(given)
    spec = spec_of(tmp_path, "second", data__tokenizer=str(given), data__vocabulary={"extend": 40})
    domain = ["胰岛素抵抗与糖尿病，服用metformin治疗。龘龘龘糖尿病患者注射胰岛素。"] * 8
    write_texts(tmp_path / "raw", domain)
    record = prepare(spec)[0]
    folder, shards = corpus_of(record, spec)
    pieces = read_pieces_of(folder / "tokenizer")
    assert pieces[: len(old)] == old
    assert 0 < record.num_new_pieces == len(pieces) - len(old) <= 40
    assert record.base_vocabulary_digest == base.vocabulary_digest
    noted = json.loads((folder / "tokenizer" / EXTENSION_NAME).read_text(encoding="utf-8"))
    assert noted["new_pieces"] == pieces[len(old) :]
    assert noted["num_base_pieces"] == len(old)
    loaded = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert len(loaded) == len(pieces)
    ids = shards.read(0)[0].tolist()
    assert set(ids) & set(range(len(old), len(pieces)))
    assert loaded.encode(domain[0] + "第0篇。", add_special_tokens=False)[: len(ids)] == ids
    assert "龘" in pieces
    if kind == "wordpiece":
        assert "metformin" in pieces
    else:
        assert {"胰岛素", "糖尿病"} <= set(pieces)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__vocabulary": {"extend": 5}}, "extend needs one to extend"),
        ({"data__tokenizer": "x", "data__vocabulary": {"kind": "unigram"}}, "stands in place of"),
        ({"data__vocabulary": {"kind": "unigram", "file": "v"}}, "kind unigram has none"),
        ({"data__vocabulary": {"kind": "unigram", "size": 200}}, "needs 300 at least"),
        ({"data__concatenate": True, "data__columns": ["gaps"]}, "needs whole documents"),
        ({"data__columns": ["gaps", "gaps"]}, "columns must not repeat"),
        ({"data__vocabulary": {"kind": "jieba_wordpiece", "num_sentinels": 3}}, "no sentinels"),
        ({"data__columns": ["gap"]}, "gaps"),
        ({"data__vocabulary": {"kind": "bpe"}}, "byte_bpe"),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(tmp_path, **changes)


def test_what_an_objective_cannot_use_is_refused_by_the_stage(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, objective="gap_sentences", data__concatenate=True)
    with pytest.raises(ConfigError, match="gap_sentences: column gaps needs whole documents"):
        prepare(spec)


def test_a_lexicon_of_n_grams_is_made_when_asked(tmp_path: Path) -> None:
    ngrams = {"min_count": 3, "min_pmi": 1.0}
    spec = spec_of(tmp_path, data__ngrams=ngrams)
    record = prepare(spec)[0]
    folder, _ = corpus_of(record, spec)
    lines = (folder / "tokenizer/ngram.txt").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith(("学习", "大家", "深度")) for line in lines), lines
    assert "tokenizer/ngram.txt" in {file.path for file in record.files}
    same = prepare(spec_of(tmp_path, "again", data__ngrams=ngrams, data__num_processes=2))[0]
    assert same.digest == record.digest
    with pytest.raises(ConfigError, match="data.ngrams needs a WordPiece vocabulary"):
        prepare(spec_of(tmp_path, "wrong", data__ngrams=ngrams,
                        data__vocabulary={"kind": "byte_bpe", "size": 400}))  # fmt: skip


def test_a_sample_of_the_corpus_is_drawn_by_the_seed(tmp_path: Path) -> None:
    digests = []
    for name, seed, sample_bytes in (
        ("a", 1, 1500),
        ("b", 1, 1500),
        ("c", 2, 1500),
        ("d", 1, 10**6),
    ):
        vocabulary = {"kind": "unigram", "size": 600, "sample_bytes": sample_bytes}
        spec = spec_of(tmp_path, name, seed=seed, data__vocabulary=vocabulary)
        digests.append(prepare(spec)[0].vocabulary_digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
