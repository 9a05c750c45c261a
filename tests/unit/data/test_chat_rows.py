from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyfsb.data.chat_rows import ChatRow, load_chat_rows
from pyfsb.data.normalizing import normalise_text
from pyfsb.errors import DataError
from pyfsb.objectives.sft import ChatSample, ChatTurn

ROW = {"task": "qa", "prompt": ["你好", "几岁"], "output": ["好的", "九"], "id": 7}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_rows_become_dialogues_in_one_spelling(tmp_path: Path) -> None:
    full_width = {**ROW, "prompt": ["你好  ＡＢ", " 几岁"], "score": 0.5}
    rows = load_chat_rows(write(tmp_path, ROW, full_width))
    assert [(row.task, row.id) for row in rows] == [("qa", 7)] * 2
    turns = ChatTurn(question="你好", answer="好的"), ChatTurn(question="几岁", answer="九")
    assert rows[0].to_sample() == ChatSample(turns=turns)
    flat = rows[1].to_sample(normalise_text)
    assert [turn.question for turn in flat.turns] == ["你好 AB", "几岁"]


def test_lines_blank_lines_and_indentation_survive(tmp_path: Path) -> None:
    code = "def f(x):\r\n\tif x:\r\n\r\n\t\treturn  １\u200b\n\n"
    row = load_chat_rows(write(tmp_path, {"prompt": "写\n\n\u3000代码", "output": code}))[0]
    expected = ChatTurn(question="写\n\n 代码", answer="def f(x):\n\tif x:\n\n\t\treturn  1")
    assert row.to_sample().turns == (expected,)


def test_one_text_is_one_turn(tmp_path: Path) -> None:
    rows = load_chat_rows(
        write(
            tmp_path,
            {"prompt": "你好", "output": "好的"},
            {"prompt": ["你好"], "output": "好的"},
        )
    )
    expected = ChatSample(turns=(ChatTurn(question="你好", answer="好的"),))
    assert [row.to_sample() for row in rows] == [expected] * 2
    assert [row.task for row in rows] == ["", ""]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    row = ChatRow.model_validate({**ROW, "other": 1})
    assert ChatRow.model_validate(row.to_json()) == row
    assert "other" not in row.to_json()
    assert load_chat_rows(write(tmp_path, row.to_json())) == [row]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prompt": []}, "prompt is empty; expected one turn at least"),
        ({"output": ["好的"]}, "2 prompts and 1 outputs; expected as many of each"),
        ({"prompt": "你好"}, "1 prompts and 2 outputs"),
        ({"output": ["好的", " "]}, "output.1 = ' ' is empty"),
        ({"prompt": ["你好", ""]}, "prompt.1 = '' is empty"),
        ({"prompt": ["\n", "几岁"]}, r"prompt.0 = '\\n' is empty"),
        ({"prompt": ["\u200b", "几岁"]}, r"prompt.0 = '\\u200b' is empty"),
        ({"prompt": [3, "几岁"]}, r"prompt.0 = 3: Input should be a valid string"),
        ({"output": None}, "output = None: "),
        ({"id": [1]}, "id.* = "),
    ],
)
def test_wrong_rows_are_named(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = write(tmp_path, ROW, {**ROW, **changes}, ROW)
    with pytest.raises(DataError, match=rf"rows.jsonl: 1 wrong rows:\n  line 2: .*{text}"):
        load_chat_rows(path)


@pytest.mark.parametrize("name", ["prompt", "output"])
def test_a_missing_side_is_named(name: str, tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key != name}
    with pytest.raises(DataError, match=f"line 1: missing key '{name}'"):
        load_chat_rows(write(tmp_path, row))


def test_all_wrong_rows_are_counted_twenty_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path, *[{**ROW, "output": []}] * 23)
    with pytest.raises(
        DataError, match=r"(?s)23 wrong rows:.*line 20: .*\n  … and 3 more$"
    ) as caught:
        load_chat_rows(path)
    assert "line 21" not in str(caught.value)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows.jsonl holds no rows"):
        load_chat_rows(write(tmp_path))
