from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb.data.normalizing import normalise_text
from pyfsb.data.rewrite_rows import load_rewrite_rows
from pyfsb.errors import DataError
from pyfsb.objectives.rewriting import RewriteSample


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_published_forms_are_read_in_one_spelling(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"text": "今天  天气ＡＢ", "summary": "晴\n\n  好"},
        {"src": "你好，世界", "tgt": "Hello, world"},
        {"text": "文", "target": "字", "extra": 1},
    )
    assert [row.to_sample() for row in load_rewrite_rows(path)] == [
        RewriteSample(text="今天  天气AB", target="晴\n\n  好"),
        RewriteSample(text="你好，世界", target="Hello, world"),
        RewriteSample(text="文", target="字"),
    ]
    flat = load_rewrite_rows(path)[0].to_sample(normalise_text)
    assert flat == RewriteSample(text="今天 天气AB", target="晴\n好")


def test_wrong_rows_are_named_with_line_and_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "文", "target": " "}, {"text": "文"})
    with pytest.raises(DataError, match="(?s)1: .*target = ' ' is empty.*2: .*target"):
        load_rewrite_rows(path)
