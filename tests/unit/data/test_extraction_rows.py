from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pyfsb.config import Family, TaskSpec
from pyfsb.data.extraction_rows import (
    UbertRow,
    UniexRow,
    extractions_of,
    load_extraction_rows,
)
from pyfsb.data.labelled import Entity, Example
from pyfsb.errors import DataError
from pyfsb.objectives.extraction import ExtractionSample, GoldRelation, GoldSpan

UBERT: dict[str, Any] = {
    "task_type": "抽取任务", "subtask_type": "实体识别", "text": "李白在长安", "id": 0,
    "choices": [
        {"entity_type": "人", "label": 0, "entity_list": [
            {"entity_name": "李白", "entity_type": "人", "entity_idx": [[0, 1]]},
            {"entity_name": "", "entity_type": "人", "entity_idx": [[]]},
        ]},
        {"entity_type": "地", "label": 0, "entity_list": []},
    ],
}  # fmt: skip
SUBJECT = {"entity_text": "鲁迅", "entity_type": "人", "entity_index": [[0, 1]]}
OBJECT = {"entity_text": "呐喊", "entity_type": "书", "entity_index": [[4, 5]]}
UNIEX: dict[str, Any] = {
    "task_type": "关系抽取", "text": "鲁迅写了呐喊", "id": "a",
    "choice": [["人", "作者", "书"], ["人", "生于", "地"]], "entity_list": [SUBJECT],
    "spo_list": [{"predicate": "作者", "subject": SUBJECT, "object": OBJECT}],
}  # fmt: skip


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    return path


def changed(row: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    row = copy.deepcopy(row)
    target: Any = row
    *steps, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for step in steps:
        target = target[step]
    target[last] = value
    return row


def test_both_forms_become_samples(tmp_path: Path) -> None:
    ubert, uniex = load_extraction_rows(write(tmp_path, UBERT, UNIEX))
    assert isinstance(ubert, UbertRow)
    assert isinstance(uniex, UniexRow)
    assert ubert.to_sample() == ExtractionSample(
        text="李白在长安", kinds=("人", "地"), task="抽取任务", subtask="实体识别",
        spans=(GoldSpan(start=0, end=2, kind=0),),
    )  # fmt: skip
    assert uniex.to_sample() == ExtractionSample(
        text="鲁迅写了呐喊", kinds=("人", "书", "地"), task="关系抽取",
        spans=(GoldSpan(start=0, end=2, kind=0), GoldSpan(start=4, end=6, kind=1)),
        schema=(("人", "作者", "书"), ("人", "生于", "地")),
        relations=(GoldRelation(subject=0, predicate="作者", object=1),),
    )  # fmt: skip


def test_classifications_have_right_kinds() -> None:
    row = changed(changed(UBERT, "task_type", "分类任务"), "choices.1.label", 1)
    row = changed(row, "choices.0.entity_list", [])
    sample = UbertRow.model_validate(row).to_sample()
    assert sample.is_classification
    assert sample.answers == {1}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (changed(UBERT, "choices", []), "choices.entity_type is empty"),
        (changed(UBERT, "choices.1.entity_type", "人"), "choices.entity_type: '人' stands twice"),
        (changed(UBERT, "choices.0.entity_list.0.entity_idx", [[0, 5]]),
         r"choices.0.entity_list: \[0, 5\] is no first and last character of a text of 5"),
        (changed(UBERT, "choices.0.entity_list.0.entity_idx", [[1, 0]]), r"\[1, 0\] is no first"),
        (changed(UBERT, "choices.0.entity_list.0.entity_name", "杜甫"), r"\[0, 1\] is '李白', not '杜甫'"),
        (changed(UNIEX, "entity_list.0.entity_type", "河"), "entity_type = '河' is not one of 人, 书, 地"),
        (changed(UNIEX, "spo_list.0.predicate", "在"), "predicate = '在' is not one of 作者, 生于"),
        (changed(UNIEX, "spo_list.0.object.entity_index", [[4, 6]]), r"entity_index: \[4, 6\] is no first"),
        (changed(UNIEX, "choice", [{"出生": ["时间"]}]), "choice"),
        ({"text": "好", "task_type": "x"}, "missing key 'choice'"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(row: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"rows.jsonl: 1 wrong rows:\n  line 2: .*{text}"):
        load_extraction_rows(write(tmp_path, UBERT, row))


def test_labelled_rows_become_texts_with_kinds() -> None:
    tags = TaskSpec(name="ner", family=Family.TAG, labels=("per", "loc"))
    example = Example(id="1", text="李白在长安", entities=(Entity(start=3, end=5, type="loc"),))
    sample = extractions_of([example], tags, titles={"per": "人名", "loc": "地名"})[0]
    assert sample.kinds == ("人名", "地名")
    assert sample.spans == (GoldSpan(start=3, end=5, kind=1),)
    pairs = TaskSpec(name="afqmc", family=Family.PAIR, text_pair="b", labels=("0", "1"))
    pair = Example(id="1", text="借吗", text_pair="能借", label="1")
    sample = extractions_of([pair], pairs, titles={"0": "不相似", "1": "相似"})[0]
    assert (sample.task, sample.text, sample.answers) == ("分类任务", "借吗[SEP]能借", {1})
