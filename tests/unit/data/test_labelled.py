from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import (
    Example,
    hold_out,
    load_examples,
    parse_rows,
    read_rows,
    with_labels,
    write_examples,
)
from pyfsb.errors import DataError

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


@given(
    texts=st.lists(st.sampled_from("甲乙丙丁戊己庚辛壬癸"), min_size=1, max_size=60),
    ratio=st.floats(0, 1), min_rows=st.integers(1, 50), seed=st.integers(0, 5),
)  # fmt: skip
def test_held_out_rows_share_no_text(
    texts: list[str], ratio: float, min_rows: int, seed: int
) -> None:
    rows = [Example(id=str(n), text=text, label="x") for n, text in enumerate(texts)]
    train, held = hold_out(rows, ratio=ratio, min_rows=min_rows, seed=seed)
    assert sorted(train + held, key=lambda row: int(row.id)) == rows
    assert not {row.text for row in train} & {row.text for row in held}
    assert len(held) <= len(rows) * 3 // 5


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


def test_keys_ignore_white_space_but_not_sides() -> None:
    def key(text: str, pair: str | None = None) -> bytes:
        return Example(id="1", text=text, text_pair=pair).key

    assert key("a b") == key("ab\u3000")
    assert key("a", "b") != key("ab") != key("b", "a")
