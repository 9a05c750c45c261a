from __future__ import annotations

from collections.abc import Sequence

import pytest

from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import Entity, Example
from pyfsb.evaluation.predict import Answer
from pyfsb.evaluation.scoring import Scored, score_answers, tagging_baseline
from pyfsb.records import Score
from tests.unit.evaluation.test_evaluation import make_task

TAG = TaskSpec(name="t", family=Family.TAG, label="entities", labels=("人", "地"))


def tagged(text: str, *entities: tuple[str, str]) -> Example:
    """Return a row whose entities are given as surface and type."""
    spans = tuple(
        Entity(start=text.index(surface), end=text.index(surface) + len(surface), type=kind)
        for surface, kind in entities
    )
    return Example(id="1", text=text, entities=spans)


TRAIN = [
    tagged("小明在北京", ("小明", "人"), ("北京", "地")),
    tagged("小明去北京大学", ("小明", "人"), ("北京大学", "地")),
    tagged("北京来的小明", ("北京", "人")),
    tagged("我爱北京", ("北京", "地")),
    tagged("大家好", ("大", "人")),
    tagged("大风大雨"),
]


@pytest.mark.parametrize(
    ("rows", "name", "share"),
    [
        ([tagged("昨天小明走", ("小明", "人"))], "known entities", 1.0),
        ([tagged("去北京", ("北京", "地"))], "known entities", 1.0),  # mostly a place
        ([tagged("在北京大学", ("北京大学", "地"))], "known entities", 1.0),  # the longest
        ([tagged("在北京大学", ("北京", "地"))], "no entities", 0.0),
        ([tagged("大雨小明", ("小明", "人"))], "known entities", 1.0),  # 大 is mostly unmarked
        ([tagged("上海"), tagged("小红", ("小红", "人"))], "no entities", 0.5),
        ([tagged("小明", ("小明", "人")), tagged("小明很好")], "no entities", 0.5),  # ties
    ],
)
def test_the_better_of_no_and_known_entities(rows: list[Example], name: str, share: float) -> None:
    assert tagging_baseline(TRAIN, rows) == (name, share)


def score(rows: Sequence[Example], train: Sequence[Example], overlap: Sequence[bool]) -> Score:
    about = Scored(
        task=make_task(spec=TAG), runner="ngram", seeds=(1,), checkpoint="c",
        checkpoint_digest="d", split_hash="h", num_train=9, num_excluded=0, seconds=1.0,
    )  # fmt: skip
    answers = [Answer(value=row.gold or "", is_truncated=False) for row in rows]
    return score_answers(about, rows, overlap, [answers], train=train)


def test_a_look_up_of_what_was_trained_on_is_no_skill() -> None:
    """All sets of entities differ, so the most frequent set would be a baseline of 1 in n."""
    rows = [tagged(f"{n}号小明", ("小明", "人")) for n in range(400)]
    found = score(rows, TRAIN, [False] * 400)
    assert (found.majority_label, found.majority_value) == ("known entities", 1.0)
    assert (found.value, found.p_value) == (1.0, 1.0)
    assert score(rows, [], [False] * 400).majority_value == 0.0


def test_the_baseline_is_about_the_scored_rows() -> None:
    rows = [tagged("小明", ("小明", "人")), tagged("小红", ("小红", "人"))]
    assert score(rows, TRAIN, [True, False]).majority_value == 0.0
    assert score(rows, TRAIN, [True, True]).majority_label == ""
