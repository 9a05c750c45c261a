from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb.data.chat_rows import load_chat_rows
from pyfsb.errors import DataError
from pyfsb.objectives.sft import ChatTurn


def _write(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_rows_become_dialogues(tmp_path: Path) -> None:
    rows = load_chat_rows(_write(
        tmp_path,
        {"task": "belle", "prompt": ["你好", "几点了"], "output": ["好", "三点"], "source": "x"},
        {"prompt": "一问", "output": "一答"},
    ))  # fmt: skip
    assert [row.task for row in rows] == ["belle", ""]
    assert rows[0].to_sample().turns == (
        ChatTurn(question="你好", answer="好"), ChatTurn(question="几点了", answer="三点"),
    )  # fmt: skip
    assert rows[1].to_sample().turns == (ChatTurn(question="一问", answer="一答"),)
    assert load_chat_rows(_write(tmp_path, rows[0].to_json())) == rows[:1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": ["甲"]}, "missing key 'output'"),
        ({"prompt": ["甲", "乙"], "output": ["丙"]}, "2 prompts and 1 outputs"),
        ({"prompt": [], "output": []}, "prompt is empty"),
        ({"prompt": ["甲"], "output": ["  "]}, "output.0 = '  ' is empty"),
        ({"prompt": ["甲", ""], "output": ["乙", "丙"]}, "prompt.1 = '' is empty"),
        ({"prompt": [7], "output": ["乙"]}, "prompt.0 = 7"),
    ],
)
def test_wrong_rows_are_named_by_line_and_field(tmp_path: Path, row: object, message: str) -> None:
    good = {"prompt": ["甲"], "output": ["乙"]}
    with pytest.raises(DataError) as caught:
        load_chat_rows(_write(tmp_path, good, row, good))
    assert "line 2" in str(caught.value)
    assert message in str(caught.value)


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        load_chat_rows(_write(tmp_path))
