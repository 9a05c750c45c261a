from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfsb import records
from pyfsb.config import DataSpec, Family, Stage, resolve_spec
from pyfsb.config.sections import MixtureSet, MixtureSpec
from pyfsb.data.labelled import Entity, Example, load_examples
from pyfsb.data.mixture import (
    LabelledSet,
    describe_dropped,
    describe_splits,
    leave_out,
    read_mixture,
)
from pyfsb.data.prepare import prepare
from pyfsb.engines.completion import find_complete
from pyfsb.errors import ConfigError, DataError
from pyfsb.records import DatasetRecord

Row = dict[str, Any]


def _write(folder: Path, name: str, rows: list[Row]) -> str:
    lines = (json.dumps(item, ensure_ascii=False) for item in rows)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return name


def _rows(texts: str, labels: str, **names: str) -> list[Row]:
    text, label = names.get("text", "text"), names.get("label", "label")
    return [{text: one, label: two} for one, two in zip(texts, labels, strict=True)]


def _set(name: str, train: str, test: str | None = None, **fields: Any) -> MixtureSet:
    return MixtureSet.model_validate({"name": name, "train": train, "test": test, **fields})


def _read(folder: Path, *sets: MixtureSet, **fields: Any) -> list[LabelledSet]:
    mixture = MixtureSpec(**{"labels": ("好", "坏"), **fields, "sets": sets})
    return read_mixture(DataSpec(root=str(folder), held_out_rows=2), mixture, seed=1)


def _two_sets(folder: Path) -> tuple[MixtureSet, MixtureSet]:
    _write(folder, "a.json", _rows("甲乙丙丁", "1010", text="content"))
    _write(folder, "a-test.json", _rows("戊己", "10", text="content"))
    _write(folder, "b.jsonl", _rows("庚辛壬", "好坏坏"))
    _write(folder, "b-test.jsonl", _rows("癸子", "好坏"))
    maps = {"text": "content", "label_map": {1: "好", 0: "坏"}}
    return (
        _set("a", "a.json", "a-test.json", **maps),
        _set("b", "b.jsonl", "b-test.jsonl"),
    )


def test_sets_with_names_and_labels_of_their_own_become_one_form(tmp_path: Path) -> None:
    first, second = _read(tmp_path, *_two_sets(tmp_path))
    assert [(row.text, row.label) for row in first.train] == list(
        zip("甲乙丙丁", "好坏好坏", strict=True)
    )
    assert [(row.text, row.label) for row in second.held_out] == [("癸", "好"), ("子", "坏")]
    assert describe_splits([first, second]) == {
        "train": 7, "held_out": 4, "a/train": 4, "a/held_out": 2, "b/train": 3, "b/held_out": 2,
    }  # fmt: skip
    assert describe_dropped([first, second]) == {}


def test_what_any_set_scores_leaves_the_training_rows_of_all(tmp_path: Path) -> None:
    a, b = _two_sets(tmp_path)
    _write(tmp_path, "a.json", _rows("甲乙丙戊癸 ", "101010", text="content")[:5])
    _write(tmp_path, "b.jsonl", _rows("庚辛壬己", "好坏坏坏"))
    first, second = _read(tmp_path, a, b)
    assert [row.text for row in first.train] == list("甲乙丙")
    assert [row.text for row in second.train] == list("庚辛壬")
    assert describe_dropped([first, second]) == {
        "a: held out in a": 1, "a: held out in b": 1, "b: held out in a": 1,
    }  # fmt: skip


def test_white_space_and_the_order_of_a_pair_hide_nothing(tmp_path: Path) -> None:
    names = {"text": "x", "text_pair": "y"}
    rows = [
        {"x": one, "y": two, "label": "好坏"[n % 2]}
        for n, (one, two) in enumerate(["甲乙", "丙丁", "戊己"])
    ]
    _write(tmp_path, "a.json", [*rows, {"x": " 辛", "y": "庚\u3000", "label": "好"}])
    _write(tmp_path, "t.json", [{"x": "庚", "y": "辛", "label": "好"}])
    (found,) = _read(tmp_path, _set("a", "a.json", "t.json", **names), family=Family.PAIR)
    assert [row.text_pair for row in found.train] == list("乙丁己")
    assert found.dropped == {"held out in a": 1}


def test_templates_are_those_of_one_set() -> None:
    row = {"id": "1", "label": "好"}
    train = [Example(text="甲", template="a/1", **row), Example(text="乙", template="a/2", **row)]
    scored = [Example(text="丙", template="a/1", **row), Example(text="丁", template="b/2", **row)]
    part = LabelledSet(name="a", train=train, held_out=scored[:1], dropped={"x": 3})
    (found,) = leave_out([part], {"task t": scored})
    assert [item.text for item in found.train] == ["乙"]
    assert found.dropped == {"x": 3, "held out in task t": 1}


def test_a_template_is_named_after_its_set(tmp_path: Path) -> None:
    rows = [{**row, "form": n} for n, row in enumerate(_rows("甲乙丙丁", "好坏好坏"))]
    _write(tmp_path, "a.json", rows)
    _write(tmp_path, "t.json", _rows("戊己", "好坏"))
    (found,) = _read(tmp_path, _set("a", "a.json", "t.json", template="form"))
    assert [row.template for row in found.train] == ["a/0", "a/1", "a/2", "a/3"]
    assert [row.template for row in found.held_out] == [None, None]


def test_a_set_without_test_rows_is_split(tmp_path: Path) -> None:
    _write(tmp_path, "a.json", _rows("甲乙丙丁戊己", "好坏好坏好坏"))
    (found,) = _read(tmp_path, _set("a", "a.json"))
    assert (len(found.train), len(found.held_out)) == (4, 2)


def test_a_label_outside_the_map_names_set_file_line_value_and_what_is_allowed(
    tmp_path: Path,
) -> None:
    a, b = _two_sets(tmp_path)
    _write(tmp_path, "a.json", _rows("甲乙", "1-", text="content"))
    with pytest.raises(DataError) as caught:
        _read(tmp_path, a, b)
    assert "a.json (set a): 1 wrong rows" in str(caught.value)
    assert "line 2: label = '-' is not one of 1, 0" in str(caught.value)


def test_rows_outside_the_map_may_be_left_out_and_are_counted(tmp_path: Path) -> None:
    a, b = _two_sets(tmp_path)
    rows = _rows("甲乙丙丁", "1010", text="content")
    _write(
        tmp_path,
        "a.json",
        [*rows, {"content": "丑", "label": "-"}, {"content": "寅", "label": None}],
    )
    first, _ = _read(tmp_path, a.model_copy(update={"drop_unmapped": True}), b)
    assert len(first.train) == 4
    assert first.dropped == {"label not in its map": 2}


def test_a_wrong_row_is_an_error_where_other_labels_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, "a.json", [{"text": "甲", "label": "好"}, {"text": "乙"}])
    with pytest.raises(DataError, match="line 2: no field 'label'; the row has 'text'"):
        _read(tmp_path, _set("a", "a.json", drop_unmapped=True))


def test_a_set_may_have_one_label_of_the_mixture_only(tmp_path: Path) -> None:
    a, b = _two_sets(tmp_path)
    _write(tmp_path, "b.jsonl", _rows("庚辛壬", "好好好"))
    assert [len(part.train) for part in _read(tmp_path, a, b)] == [4, 3]
    with pytest.raises(DataError, match="label = 好 in all 3 training rows"):
        _read(tmp_path, b)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], r"b.jsonl \(set b\) holds no rows"),
        (_rows("癸子", "好坏"), "set b: 0 rows are left to train on and 2 to score, both need some; left out: 2 held out in b"),
        (_rows("庚", "差"), r"b.jsonl \(set b\): none of 1 rows has one of the labels 好, 坏 in field 'label'"),
    ],
)  # fmt: skip
def test_a_set_of_no_use_is_named(rows: list[Row], problem: str, tmp_path: Path) -> None:
    a, b = _two_sets(tmp_path)
    _write(tmp_path, "b.jsonl", rows)
    with pytest.raises(DataError, match=problem):
        _read(tmp_path, a, b.model_copy(update={"drop_unmapped": True}))


def test_entity_types_are_translated(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 1, "type": "PER"}]
    _write(
        tmp_path,
        "a.json",
        [{"text": "甲说", "label": spans}, {"text": "乙说", "label": [{**spans[0], "type": "X"}]}],
    )
    _write(tmp_path, "t.json", [{"text": "丙说", "label": spans}])
    part = _set("a", "a.json", "t.json", label_map={"PER": "人"}, drop_unmapped=True)
    (found,) = _read(tmp_path, part, family=Family.TAG, labels=("人",))
    assert found.train[0].entities == (Entity(start=0, end=1, type="人"),)
    assert found.dropped == {"label not in its map": 1}


def _spec(folder: Path, **mixture: Any) -> Row:
    sets = [part.model_dump(exclude_defaults=True) for part in _two_sets(folder)]
    return {
        "name": "x", "output": str(folder / "run"),
        "model": {"name": "Erlangshen-MegatronBert-1.3B", "checkpoint": "w"},
        "data": {"root": str(folder), "mixture": {"name": "mood", "labels": ["好", "坏"], "sets": sets, **mixture}},
    }  # fmt: skip


def _resolve(value: Row) -> Any:
    return resolve_spec(yaml.safe_dump(value, allow_unicode=True))


def test_the_data_stage_writes_a_folder_a_set_and_one_record(tmp_path: Path) -> None:
    spec = _resolve(_spec(tmp_path))
    (record,) = prepare(spec)
    assert isinstance(record, DatasetRecord)
    assert record == records.read_record(str(tmp_path / "run/data/labelled"))
    assert [file.path for file in record.files] == [
        "a/held_out.jsonl", "a/train.jsonl", "b/held_out.jsonl", "b/train.jsonl",
    ]  # fmt: skip
    assert [file.path for file in record.inputs] == [
        "a.json",
        "a-test.json",
        "b.jsonl",
        "b-test.jsonl",
    ]
    assert (record.num_read, record.num_kept, record.labels) == (11, 11, ("好", "坏"))
    rows = load_examples(tmp_path / "run/data/labelled/a/train.jsonl")
    assert [row.label for row in rows] == list("好坏好坏")


def test_a_changed_file_or_map_is_noticed_but_weights_are_not_the_data_stages(
    tmp_path: Path,
) -> None:
    spec = _resolve(_spec(tmp_path))
    prepare(spec)
    assert find_complete(spec, Stage.DATA, None)
    assert find_complete(_resolve(_spec(tmp_path, temperature=3.0)), Stage.DATA, None)
    with pytest.raises(ConfigError, match="was made with other settings"):
        find_complete(_resolve(_spec(tmp_path, labels=["坏", "好"])), Stage.DATA, None)
    _write(tmp_path, "b-test.jsonl", _rows("癸丑", "好坏"))
    with pytest.raises(ConfigError, match="from b-test.jsonl with other content"):
        find_complete(spec, Stage.DATA, None)
