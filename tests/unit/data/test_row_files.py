from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.data.row_files import read_rows
from pyfsb.errors import DataError

TEXT = '[\n  {"text": "甲\\n乙", "label": 1},\n\n  {"text": "丙",\n   "label": [1, {"a": "]"}]}, {}\n]\n'


def test_a_json_list_gives_each_object_with_the_line_on_which_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + TEXT, encoding="utf-8")
    assert list(read_rows(path)) == [
        (2, {"text": "甲\n乙", "label": 1}), (4, {"text": "丙", "label": [1, {"a": "]"}]}), (5, {}),
    ]  # fmt: skip


def test_a_json_file_of_lines_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"text": "甲\u2028"}\n\n{"text": "乙"}\n', encoding="utf-8")
    assert list(read_rows(path)) == [(1, {"text": "甲\u2028"}), (3, {"text": "乙"})]


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(" [\n ]\n")
    assert list(read_rows(tmp_path / "a.json")) == []


@given(st.lists(st.dictionaries(st.text(), st.text()), max_size=5), st.sampled_from([None, 2]))
def test_every_list_comes_back(tmp_path_factory: Any, rows: list[Any], indent: int | None) -> None:
    path = tmp_path_factory.mktemp("x") / "a.json"
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    assert [row for _, row in read_rows(path)] == rows


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'[\n{"a": 1},\n{"a" 2}]', "line 3: not a JSON list of objects: Expecting ':' delimiter"),
        (b'[{"a": 1}\n{"a": 2}]', "line 1: no ',' or ']' after the object that begins here"),
        (b'[{"a": 1},\n', "line 1: not a JSON list of objects"),
        (b'[{"a": 1},\n"b"]', "line 2: expected an object"),
        (b'[\n{"a": "\xff"}]', "line 2: not UTF-8"),
    ],
)
def test_a_broken_list_names_the_line(data: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / "a.json"))
    assert problem in str(caught.value)


@pytest.mark.parametrize("form", ["%s\n", "[%s]"])
def test_too_deep_a_row_is_named(form: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(form % ('{"a": ' + "[" * 200_000))
    with pytest.raises(DataError, match=r"a.json: line 1: not "):
        list(read_rows(tmp_path / "a.json"))
