from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyfsb.config import Family, TaskSpec
from pyfsb.data.choice_rows import ChoiceRow, choices_of, load_choice_rows
from pyfsb.data.labelled import Example
from pyfsb.errors import ConfigError, DataError
from pyfsb.objectives.multiple_choice import ChoiceSample

ROW = {
    "texta": "球队昨晚赢了比赛", "textb": "", "question": "这是什么新闻？",
    "choice": ["体育", "财经"], "answer": "财经", "label": 1, "id": 7, "task_type": "分类",
}  # fmt: skip


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    return path


def test_rows_become_samples(tmp_path: Path) -> None:
    unlabelled = {
        key: value for key, value in ROW.items() if key not in ("answer", "label", "textb")
    }
    rows = load_choice_rows(write(tmp_path, ROW, {**ROW, "label": None}, unlabelled))
    expected = ChoiceSample(
        text="球队昨晚赢了比赛", question="这是什么新闻？", options=("体育", "财经"), answer=1
    )
    assert [row.to_sample() for row in rows[:2]] == [expected, expected]
    assert rows[2].to_sample().answer is None
    assert ChoiceRow.model_validate({**ROW, "answer": ""}).number == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"choice": ["体育"], "answer": "体育"}, "choice has 1 options"),
        ({"choice": ["体育", " "], "answer": None}, "choice.1 = ' ' is empty"),
        ({"choice": ["体育", "财经", "体育"]}, "choice.2 = '体育' stands twice"),
        ({"answer": "教育"}, "answer = '教育' is not one of choice"),
        ({"label": 2, "answer": None}, "label = 2 of 2 options"),
        ({"label": 0}, "label = 0 is '体育', answer = '财经'"),
        ({"texta": 3}, r"texta = 3: Input should be a valid string"),
    ],
)
def test_wrong_rows_are_named(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = write(tmp_path, ROW, {**ROW, **changes})
    with pytest.raises(DataError, match=rf"rows.jsonl: 1 wrong rows:\n  line 2: .*{text}"):
        load_choice_rows(path)


def test_all_wrong_rows_are_counted_some_shown(tmp_path: Path) -> None:
    path = write(tmp_path, *[{**ROW, "label": 0}] * 25)
    with pytest.raises(DataError, match="25 wrong rows") as caught:
        load_choice_rows(path)
    assert str(caught.value).count("line ") == 20
    assert "… and 5 more" in str(caught.value)
    with pytest.raises(DataError, match="holds no rows"):
        load_choice_rows(write(tmp_path))


def test_labelled_rows_become_questions() -> None:
    task = TaskSpec(name="news", labels=("100", "101"))
    examples = [Example(id="1", text="赢了", label="101"), Example(id="2", text="跌了")]
    samples = choices_of(examples, task, titles={"100": "财经", "101": "体育"}, question="什么？")
    assert samples == [
        ChoiceSample(text="赢了", options=("财经", "体育"), question="什么？", answer=1),
        ChoiceSample(text="跌了", options=("财经", "体育"), question="什么？", answer=None),
    ]
    with pytest.raises(ConfigError, match="labels '100' and '101' both become '体育'"):
        choices_of(examples, task, titles={"100": "体育", "101": "体育"})


def test_pairs_stand_beside_the_text_or_in_the_options() -> None:
    task = TaskSpec(name="nli", family=Family.PAIR, text_pair="b", labels=("0", "1"))
    examples = [Example(id="1", text="下雨了", text_pair="天晴", label="0")]
    plain = choices_of(examples, task, titles={"0": "矛盾", "1": "蕴含"})[0]
    assert (plain.text_pair, plain.options) == ("天晴", ("矛盾", "蕴含"))
    inside = choices_of(
        examples, task, titles={"0": "不能推断出：{pair}", "1": "可以推断出：{pair}"}
    )[0]
    assert (inside.text_pair, inside.options) == ("", ("不能推断出：天晴", "可以推断出：天晴"))
    tags = TaskSpec(name="ner", family=Family.TAG, labels=("人",))
    with pytest.raises(ConfigError, match="rows of family tag have no one label"):
        choices_of([], tags)
