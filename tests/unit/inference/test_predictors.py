from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pyfsb
from pyfsb.config import Family
from pyfsb.errors import CheckpointError, ConfigError, UnknownNameError
from pyfsb.inference.classify import Classifier, decode_label
from pyfsb.inference.encoding import EncodedRow, encode_rows, group_by_length, pad_rows
from pyfsb.inference.fill_mask import MaskFiller
from pyfsb.inference.generate import Generator
from pyfsb.inference.pair import PairClassifier
from pyfsb.inference.pieces import join_pieces
from pyfsb.inference.protocol import TextInput, as_inputs
from pyfsb.inference.tag import Tagger, bio_labels, decode_entities, encode_entities
from pyfsb.models.loading import load_tokenizer
from tests.helpers.models import ENCODERS, MODELS, make_model, write_model
from tests.helpers.versions import put_version

TEXTS = ["中国人民大学", "北京是我们的首都", "好", "hello world，我们很好！" * 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("m"), MODELS[0], Family.CLASSIFY, labels=("坏", "好", "中")
    )


def test_five_lines_of_python(folder: Path) -> None:
    model = pyfsb.load(str(folder))
    assert isinstance(model, Classifier)
    result = model.predict(TEXTS)
    assert [set(answer.scores) for answer in result] == [{"坏", "好", "中"}] * 4
    for answer in result:
        assert answer.score == answer.scores[answer.label] == max(answer.scores.values())
        assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-4)
    assert model.predict([]) == []


def test_a_version_of_the_model_store_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSB_MODEL_STORE", str(tmp_path))
    put_version(str(tmp_path), 2, checkpoint=str(folder))
    assert isinstance(pyfsb.load("sentiment@2"), Classifier)
    with pytest.raises(UnknownNameError, match="unknown version of sentiment"):
        pyfsb.load("sentiment@3")


@pytest.mark.parametrize("name", MODELS)
def test_answers_do_not_depend_on_the_batch(name: str, tmp_path: Path) -> None:
    write_model(tmp_path, name, Family.CLASSIFY, labels=("a", "b"))
    model = pyfsb.load(str(tmp_path))
    together = model.predict(TEXTS)
    for text, answer in zip(TEXTS, together, strict=True):
        alone = model.predict([text])[0]
        assert alone.label == answer.label  # type: ignore[union-attr]
        assert alone.score == pytest.approx(answer.score, abs=2e-6)  # type: ignore[union-attr]


def test_probabilities_are_the_softmax_of_the_logits(folder: Path) -> None:
    model = make_model(MODELS[0], Family.CLASSIFY, labels=("坏", "好", "中"))
    ids = torch.tensor([load_tokenizer(folder)(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits.softmax(-1)[0].tolist()
    scores = pyfsb.load(str(folder)).predict([TEXTS[0]])[0].scores  # type: ignore[union-attr]
    assert list(scores.values()) == pytest.approx(expected, abs=1e-5)


def test_ties_go_to_the_earlier_label() -> None:
    assert decode_label([0.4, 0.4, 0.2], ["b", "a", "c"], False).label == "b"


def test_long_texts_are_cut_and_told(folder: Path) -> None:
    answers = pyfsb.load(str(folder)).predict(["好" * 62, "好" * 63])
    assert [answer.is_truncated for answer in answers] == [False, True]


def test_texts_are_normalised_as_the_corpus_was(folder: Path) -> None:
    model = pyfsb.load(str(folder))
    assert model.predict(["ＨＥＬＬＯ\u3000\u200b中国"]) == model.predict(["HELLO 中国"])


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (["好", " "], "input 1: the text is empty"),
        ([("好", "坏")], "input 0: this model takes one text; leave text_pair out"),
    ],
)
def test_wrong_inputs_are_named(inputs: list[str], text: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        pyfsb.load(str(folder)).predict(inputs)


def test_pairs_need_two_texts(folder: Path) -> None:
    model = PairClassifier(
        make_model(MODELS[0], Family.PAIR, labels=("0", "1")), load_tokenizer(folder),
        name="p", max_tokens=64,
    )  # fmt: skip
    assert len(model.predict([("中国", "人民"), TextInput(text="a", text_pair="b")])) == 2
    with pytest.raises(ConfigError, match="input 0: this model compares two texts"):
        model.predict(["中国"])
    swapped = model.predict([("中国人民", "好"), ("好", "中国人民")])
    assert swapped[0].score != swapped[1].score


@pytest.mark.parametrize("name", ENCODERS)
def test_masks_are_filled(name: str, tmp_path: Path) -> None:
    write_model(tmp_path, name, Family.FILL_MASK)
    model = pyfsb.load(str(tmp_path))
    assert isinstance(model, MaskFiller)
    result = model.predict(["中国的首都是[MASK][MASK]。"])[0]
    assert len(result.masks) == 2
    scores = [candidate.score for candidate in result.masks[0]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 5
    first, second = (candidates[0].token for candidates in result.masks)
    assert result.text == join_pieces([*"中国的首都是", first, second, "。"])
    with pytest.raises(ConfigError, match=r"input 1: no \[MASK\] in '中国'"):
        model.predict(["[MASK]", "中国"])
    with pytest.raises(ConfigError, match="beyond the model's 64 tokens"):
        model.predict(["好" * 80 + "[MASK]"])


def test_text_is_continued_greedily(tmp_path: Path) -> None:
    write_model(tmp_path, "Wenzhong-GPT2-110M", Family.GENERATE)
    model = pyfsb.load(str(tmp_path))
    assert isinstance(model, Generator)
    first, second = model.predict(["中国", "中国"])
    assert first == second
    assert 0 < first.num_tokens <= 64
    assert model.predict(["好" * 200])[0].is_truncated


def test_rows_are_padded_and_grouped() -> None:
    rows = [
        EncodedRow(ids=(1,) * n, types=(0,) * n, offsets=((0, 1),) * n, is_truncated=False)
        for n in (5, 2, 9, 2)
    ]
    groups = list(group_by_length(rows, batch_tokens=10))
    assert groups == [[1, 3], [0], [2]]
    batch = pad_rows(rows[:2], pad_id=7)
    assert batch["input_ids"].tolist() == [[1] * 5, [1, 1, 7, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]


def test_tags_decode_to_spans_and_back(folder: Path) -> None:
    text = "hello中国，大学"
    row = encode_rows(
        load_tokenizer(folder), [TextInput(text=text)], max_tokens=64, keeps_characters=True
    )[0]
    labels = bio_labels(["地", "校"])
    assert labels == ["O", "B-地", "I-地", "B-校", "I-校"]
    spans = [(5, 7, "地"), (8, 10, "校")]
    positions, targets = encode_entities(row, spans, labels)
    tags = ["O"] * len(row.ids)
    for place, target in zip(positions, targets, strict=True):
        tags[place] = labels[target]
    found = decode_entities(text, row, tags)
    assert [(e.start, e.end, e.type, e.text) for e in found] == [
        (5, 7, "地", "中国"), (8, 10, "校", "大学"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["B-a", "I-a", "O", "B-a"], [(0, 2, "a"), (3, 4, "a")]),
        (["B-a", "B-a", "I-a"], [(0, 1, "a"), (1, 3, "a")]),
        (["I-a", "I-a"], [(0, 2, "a")]),
        (["B-a", "I-b"], [(0, 1, "a"), (1, 2, "b")]),
        (["B-a", "O", "I-a"], [(0, 1, "a"), (2, 3, "a")]),
        (["O", "O"], []),
    ],
)
def test_bio_rules(tags: list[str], spans: list[tuple[int, int, str]]) -> None:
    offsets = tuple((place, place + 1) for place in range(len(tags)))
    row = EncodedRow(ids=(), types=(), offsets=offsets, is_truncated=False)
    found = decode_entities("x" * len(tags), row, tags)
    assert [(e.start, e.end, e.type) for e in found] == spans


def test_a_tagger_finds_spans_inside_the_text(tmp_path: Path) -> None:
    write_model(tmp_path, MODELS[0], Family.TAG, labels=tuple(bio_labels(["x"])))
    model = pyfsb.load(str(tmp_path))
    assert isinstance(model, Tagger)
    for text, result in zip(TEXTS, model.predict(TEXTS), strict=True):
        for entity in result.entities:
            assert text[entity.start : entity.end] == entity.text


def test_inputs_come_in_three_forms() -> None:
    assert as_inputs(["a"]) == [TextInput(text="a")]
    assert as_inputs([("a", "b")], needs_pair=True) == [TextInput(text="a", text_pair="b")]


def test_a_folder_with_another_record_is_explained(tmp_path: Path) -> None:
    from pyfsb import records
    from tests.unit.test_records import dataset

    records.write_record(dataset(), str(tmp_path))
    with pytest.raises(CheckpointError, match="holds a DatasetRecord; a model is a Checkpoint"):
        pyfsb.load(str(tmp_path))


def test_an_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither a record.json nor a config.json"):
        pyfsb.load(str(tmp_path))
