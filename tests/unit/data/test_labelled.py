from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import (
    Entity,
    Example,
    check_split,
    entities_text,
    hold_out,
    load_examples,
    parse_rows,
    parse_spans,
    with_labels,
    write_examples,
)
from pyfsb.data.row_files import read_rows
from pyfsb.errors import DataError, StorageError

TASK = TaskSpec(labels=("正", "负"))
PAIR = TaskSpec(family=Family.PAIR, text="a", text_pair="b", labels=("0", "1"))
TAG = TaskSpec(family=Family.TAG, label="entities", labels=("name", "place"))


def _parse(row: dict[str, Any], task: TaskSpec = TASK) -> Example:
    return parse_rows([(1, row)], task, source="f")[0]


def test_csv_with_quotes_commas_and_newlines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext,label\r\n"好，""很好""\n的",正\r\n坏,负\r\n'.encode())
    assert [row for _, row in read_rows(path)] == [
        {"text": '好，"很好"\n的', "label": "正"}, {"text": "坏", "label": "负"},
    ]  # fmt: skip


def test_tsv_keeps_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('label\ttext\n1\t他说"好\n', newline="\n")
    assert list(read_rows(path)) == [(2, {"label": "1", "text": '他说"好'})]


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.csv", b"text,label\na,b,c\n", "line 2: 3 fields, the header has 2"),
        ("a.csv", "text,label\n好,正\n".encode("gb18030"), "line 2: not UTF-8"),
        ("a.csv", b'text,label\n"a,b\n', "line 2: unexpected end of data"),
        ("a.tsv", b"text\tlabel\na\n", "line 2: 1 fields, the header has 2"),
        ("a.jsonl", b'{"text": "a"}\n{bad\n', "line 2: not JSON"),
        ("a.jsonl", b'"text"\n', "line 1: expected an object"),
        ("a.jsonl", b"\xff\n", "line 1: not UTF-8 at byte 0"),
        ("a.jsonl", b'{"text": "a\\ud83d"}\n', "line 1: '\\ud83d' is half a character"),
    ],
)
def test_broken_files_name_the_line(name: str, data: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / name))
    assert text in str(caught.value)
    assert name in str(caught.value)


def test_labels_may_be_numbers_in_the_file() -> None:
    assert _parse({"a": "x", "b": "y", "label": 1, "id": 7}, PAIR) == Example(
        id="7", text="x", text_pair="y", label="1"
    )


def test_every_wrong_row_is_named_with_line_field_and_value() -> None:
    rows = [
        (2, {"text": "好", "label": "正"}),
        (3, {"text": "好", "label": "中"}),
        (4, {"text": " ", "label": "正"}),
        (5, {"label": "正"}),
        (6, {"text": "好"}),
        (7, {"text": 3, "label": "正"}),
    ]
    with pytest.raises(DataError) as caught:
        parse_rows(rows, TASK, source="mine.csv")
    text = str(caught.value)
    assert "mine.csv: 5 wrong rows" in text
    assert "line 3: label = '中' is not one of 正, 负" in text
    assert "line 4: text = ' ' is not a text" in text
    assert "line 5: no field 'text'; the row has 'label'" in text
    assert "line 6: no field 'label'; the row has 'text'" in text
    assert "line 7: text = 3 is not a text" in text


def test_only_twenty_rows_are_shown() -> None:
    rows = [(number, {"text": "x", "label": "?"}) for number in range(50)]
    with pytest.raises(DataError, match="and 30 more"):
        parse_rows(rows, TASK, source="f")


def test_a_near_label_is_suggested() -> None:
    task = TaskSpec(labels=("Positive", "Negative"))
    with pytest.raises(DataError, match="did you mean 'Positive'"):
        _parse({"text": "x", "label": "positiv"}, task)


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(DataError, match="f holds no rows"):
        parse_rows([], TASK, source="f")


def test_excluded_labels_leave_the_row_without_one() -> None:
    row = parse_rows([(1, {"text": "x", "label": "-"})], TASK, source="f", excluded=frozenset("-"))
    assert row[0].gold is None


@pytest.mark.parametrize(
    "value",
    [
        [{"start": 0, "end": 2, "type": "name"}],
        json.dumps([{"start": 0, "end": 2, "type": "name"}]),
        {"name": {"小明": [[0, 1]]}},
    ],
)
def test_three_forms_of_entities(value: object) -> None:
    row = _parse({"text": "小明在家", "entities": value}, TAG)
    assert row.gold == "0-2:name"


def test_no_entities_are_a_gold_answer_too() -> None:
    assert _parse({"text": "小明", "entities": []}, TAG).gold == ""
    assert _parse({"text": "小明", "entities": ""}, TAG).gold == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([{"start": 0, "end": 9, "type": "name"}], "entity 0..9 lies outside a text of 2"),
        ([{"start": 1, "end": 1, "type": "name"}], "entity 1..1 lies outside"),
        ([{"start": 0, "end": 1, "type": "nme"}], "entity type 'nme' is not one of name, place"),
        ([{"begin": 0}], "is not a list of {start, end, type}"),
        ("x", "is not a JSON list of entities"),
        (3, "is not a list of"),
        ({"name": {"小": 3}}, "is not a list of"),
    ],
)
def test_wrong_entities_are_named(value: object, text: str) -> None:
    with pytest.raises(DataError) as caught:
        _parse({"text": "小明", "entities": value}, TAG)
    assert text in str(caught.value)


def test_labels_are_taken_from_the_rows_when_none_are_given() -> None:
    rows = [(1, {"text": "x", "label": "b"}), (2, {"text": "x", "label": " a "})]
    assert with_labels(TaskSpec(), rows, source="f").labels == ("a", "b")
    assert with_labels(TASK, rows, source="f") is TASK
    tagged = [(1, {"text": "小明", "entities": {"name": {"小明": [[0, 1]]}}})]
    assert with_labels(
        TaskSpec(family=Family.TAG, label="entities"), tagged, source="f"
    ).labels == ("name",)


def test_one_label_is_no_task() -> None:
    with pytest.raises(DataError, match="found 1 labels in field 'label'; a task needs at least"):
        with_labels(TaskSpec(), [(1, {"label": "a"})], source="f")


TAG_FREE = TaskSpec(family=Family.TAG, label="entities")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "小明", "entities": "甲"}, "line 2: '甲' is not a JSON list of entities"),
        ({"text": "小明"}, "line 2: no field 'entities'; the row has 'text'"),
        ({"text": "小明", "entities": None}, "line 2: None is not a list of {start, end, type}"),
    ],
)
def test_a_wrong_tag_row_is_named_though_no_labels_are_given(
    row: dict[str, Any], text: str
) -> None:
    good = {"text": "小明", "entities": [{"start": 0, "end": 2, "type": "name"}]}
    with pytest.raises(DataError) as caught:
        with_labels(TAG_FREE, [(2, row)], source="f")
    assert f"f: 1 wrong rows:\n  {text}" in str(caught.value)
    task = with_labels(TAG_FREE, [(1, good), (2, row)], source="f")
    assert task.labels == ("name",)
    with pytest.raises(DataError) as caught:
        parse_rows([(1, good), (2, row)], task, source="f")
    assert f"f: 1 wrong rows:\n  {text}" in str(caught.value)


def test_rows_without_a_label_are_named_rather_than_counted() -> None:
    rows = [
        (2, {"text": "好", "label": "正"}),
        (3, {"text": "好", "label": " "}),
        (4, {"text": "坏"}),
    ]
    with pytest.raises(DataError) as caught:
        with_labels(TaskSpec(), rows, source="f")
    assert "f: 2 wrong rows" in str(caught.value)
    assert "line 3: label = ' ' is not a label" in str(caught.value)
    assert "line 4: no field 'label'; the row has 'text'" in str(caught.value)


def test_a_template_is_taken_from_the_named_field_only() -> None:
    row = {"text": "好", "label": "正", "template": "t1", "form": 7}
    assert _parse(row).template is None
    named = TASK.model_copy(update={"template": "form"})
    assert _parse(row, named).template == "7"
    for blank in ({"form": ""}, {"form": "  "}, {"form": None}):
        assert _parse({**row, **blank}, named).template is None
    assert _parse({"text": "好", "label": "正"}, named).template is None


@given(
    items=st.lists(
        st.tuples(
            st.sampled_from("甲乙丙丁戊己庚辛壬癸"),
            st.sampled_from([None, None, "p", "q", "r"]),
            st.sampled_from([None, None, None, "t1", "t2"]),
            st.sampled_from("xyz"),
        ),
        min_size=1, max_size=60,
    ),
    ratio=st.floats(0, 1), min_rows=st.integers(1, 50), seed=st.integers(0, 5),
)  # fmt: skip
def test_held_out_rows_share_nothing_and_leave_every_label_in_training(
    items: list[tuple[str, str | None, str | None, str]], ratio: float, min_rows: int, seed: int
) -> None:
    rows = [
        Example(id=str(n), text=text, text_pair=pair, template=template, label=label)
        for n, (text, pair, template, label) in enumerate(items)
    ]
    train, held = hold_out(rows, ratio=ratio, min_rows=min_rows, seed=seed)
    assert sorted(train + held, key=lambda row: int(row.id)) == rows
    assert not {mark for row in train for mark in row.marks} & {
        m for row in held for m in row.marks
    }
    assert {row.label for row in train} == {row.label for row in rows}
    assert len(held) <= len(rows) * 3 // 5


def test_swapped_pairs_and_one_template_stay_together() -> None:
    rows = [
        Example(id="0", text="甲", text_pair="乙", label="x"),
        Example(id="1", text="乙", text_pair="甲", label="x"),
        *(Example(id=str(n), text=f"文{n}", template="t", label="y") for n in range(2, 5)),
        *(Example(id=str(n), text=f"文{n}", label="xy"[n % 2]) for n in range(5, 60)),
    ]
    for seed in range(8):
        train, _ = hold_out(rows, ratio=0.5, min_rows=1, seed=seed)
        ids = {row.id for row in train}
        assert len(ids & {"0", "1"}) in (0, 2)
        assert len(ids & {"2", "3", "4"}) in (0, 3)


def test_large_groups_still_give_the_wanted_rows() -> None:
    rows = [Example(id=str(n), text=f"文{n}", template=str(n // 70), label="x") for n in range(700)]
    train, held = hold_out(rows, ratio=0.2, min_rows=300, seed=1)
    assert (len(train), len(held)) == (350, 350)


def test_a_rare_label_stays_in_training() -> None:
    rows = [Example(id=str(n), text=f"文{n}", label="x" if n else "rare") for n in range(100)]
    for seed in range(10):
        train, held = hold_out(rows, ratio=0.6, min_rows=1, seed=seed)
        assert "rare" in {row.label for row in train}
        assert len(held) == 60


def _rows(*labels: str | None) -> list[Example]:
    return [Example(id=str(n), text=f"文{n}", label=label) for n, label in enumerate(labels)]


TAGGED = Example(
    id="1", text="小明", entities=(Entity(start=0, end=2, type="name"),)
)  # fmt: skip
UNTAGGED = Example(id="2", text="小红", entities=())


@pytest.mark.parametrize(
    ("train", "held_out", "task", "text"),
    [
        (_rows("正"), [], TASK, "f: of 1 rows 1 are left to train on and 0 to score"),
        ([], _rows("正"), TASK, "f: of 1 rows 0 are left to train on and 1 to score"),
        (_rows("正", "正"), _rows("负"), TASK, "f: label = 正 in all 2 training rows"),
        ([UNTAGGED], [TAGGED], TAG, "f: none of 1 training rows has an entity in field 'entities'"),
    ],
)
def test_a_split_of_no_use_is_refused(
    train: list[Example], held_out: list[Example], task: TaskSpec, text: str
) -> None:
    with pytest.raises(DataError) as caught:
        check_split(train, held_out, task, source="f")
    assert text in str(caught.value)


def test_a_split_of_use_is_not() -> None:
    check_split(_rows("正", "负"), _rows("正"), TASK, source="f")
    check_split([TAGGED], [UNTAGGED], TAG, source="f")


@pytest.mark.parametrize("texts", [["同"] * 40, ["甲", "乙"]])
def test_equal_texts_or_two_rows_leave_nothing_to_score(texts: list[str]) -> None:
    rows = [Example(id=str(n), text=text, label="xy"[n % 2]) for n, text in enumerate(texts)]
    train, held = hold_out(rows, ratio=0.2, min_rows=300, seed=1)
    assert (train, held) == (rows, [])


def test_the_split_is_of_the_asked_size_and_repeatable() -> None:
    rows = [Example(id=str(n), text=f"文{n}", label="x") for n in range(1000)]
    train, held = hold_out(rows, ratio=0.2, min_rows=300, seed=1)
    assert (len(train), len(held)) == (700, 300)
    assert hold_out(rows, ratio=0.2, min_rows=300, seed=1)[1] == held
    assert hold_out(rows, ratio=0.2, min_rows=300, seed=2)[1] != held
    assert len(hold_out(rows[:400], ratio=0.2, min_rows=300, seed=1)[1]) == 240


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    rows = [_parse({"text": "小明\u2028在", "entities": {"name": {"小明": [[0, 1]]}}}, TAG)]
    write_examples(rows, tmp_path / "a.jsonl")
    assert load_examples(tmp_path / "a.jsonl") == rows


def test_a_full_disk_is_a_storage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="disk full: cannot write .*a.jsonl"):
        write_examples(_rows("正"), tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_spans_are_the_same_for_the_same_set_and_read_back() -> None:
    spans = [(5, 9, "brand name"), (0, 2, "product name"), (0, 2, "product name"), (3, 4, "a:b-1")]
    text = entities_text(Entity(start=start, end=end, type=kind) for start, end, kind in spans)
    assert text == "0-2:product name 3-4:a:b-1 5-9:brand name"
    assert parse_spans(text) == frozenset(spans)
    assert parse_spans("") == frozenset()


def test_keys_ignore_white_space_but_not_sides() -> None:
    def key(text: str, pair: str | None = None) -> bytes:
        return Example(id="1", text=text, text_pair=pair).key

    assert key("a b") == key("ab\u3000")
    assert key("a", "b") != key("ab") != key("b", "a")
