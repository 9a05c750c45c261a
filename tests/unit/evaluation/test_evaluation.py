from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pyfsb.config import Family, GateSpec, ServingSpec, TaskSpec, resolve_spec
from pyfsb.data.labelled import Entity, Example
from pyfsb.errors import ConfigError, DataError, StorageError, UnknownNameError
from pyfsb.evaluation.contamination import find_overlap
from pyfsb.evaluation.gate import decide_gate
from pyfsb.evaluation.metrics import entity_f1, is_degenerate, macro_f1
from pyfsb.evaluation.ngram import fit_ngram
from pyfsb.evaluation.predict import Answer, answer_rows
from pyfsb.evaluation.protocol import Submission, Task
from pyfsb.evaluation.rows import check_files, read_task_rows
from pyfsb.evaluation.scoring import Scored, score_answers
from pyfsb.evaluation.statistics import (
    binomial_p_value,
    majority,
    paired_difference,
    wilson_interval,
)
from pyfsb.evaluation.submission import check_submission, write_submission
from pyfsb.evaluation.suites import SUITES, resolve_tasks
from pyfsb.evaluation.tasks import all_tasks, find_task
from pyfsb.inference.loading import load_predictor
from pyfsb.records import CheckpointRecord, Score
from pyfsb.storage.workspace import Workspace
from pyfsb.training.distributed import ProcessGroup
from tests.helpers.specs import tiny_spec

ALONE = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))
CASES = json.loads((Path(__file__).parent / "metric_cases.json").read_text(encoding="utf-8"))


def make_task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "spec": TaskSpec(name="t", labels=("a", "b")), "title": "t", "version": "1",
        "train": "train.json", "test": "test.json", "source": "s", "licence": "l",
    }  # fmt: skip
    return Task(**{**fields, **changes})


def row(text: str, label: str | None = "a", **fields: Any) -> Example:
    return Example(id="1", text=text, label=label, **fields)


@pytest.mark.parametrize("case", CASES["wilson"], ids=lambda case: case["source"])
def test_wilson_intervals(case: dict[str, Any]) -> None:
    assert wilson_interval(case["correct"], case["rows"]) == pytest.approx(
        tuple(case["interval"]), abs=case["tolerance"]
    )


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_share(correct: int, rows: int) -> None:
    correct = min(correct, rows)
    low, high = wilson_interval(correct, rows)
    assert 0 <= low <= correct / rows <= high <= 1


@pytest.mark.parametrize("case", CASES["binomial"], ids=lambda case: case["source"])
def test_binomial_p_values(case: dict[str, Any]) -> None:
    found = binomial_p_value(case["correct"], case["rows"], case["baseline"])
    assert found == pytest.approx(case["p_value"], rel=case["tolerance"])


def test_the_majority_breaks_ties_by_name() -> None:
    assert majority(["b", "a", "b", "a"]) == ("a", 0.5)


@pytest.mark.parametrize("case", CASES["macro_f1"], ids=lambda case: case["source"])
def test_macro_f1(case: dict[str, Any]) -> None:
    found = macro_f1(case["gold"], case["predicted"], case["labels"])
    assert found == pytest.approx(case["value"], abs=1e-9)


@pytest.mark.parametrize("case", CASES["entity_f1"], ids=lambda case: case["source"])
def test_entity_f1(case: dict[str, Any]) -> None:
    assert entity_f1(case["gold"], case["predicted"]) == pytest.approx(case["value"], abs=1e-9)


def test_constant_answers_are_degenerate() -> None:
    assert is_degenerate(["a"] * 96 + ["b"] * 4)
    assert not is_degenerate(["a"] * 95 + ["b"] * 5)
    assert not is_degenerate([])


def test_paired_differences() -> None:
    result = paired_difference([0.5, 0.6, 0.7], [0.4, 0.5, 0.65])
    assert result.mean == pytest.approx(0.0833333)
    assert result.p_value == pytest.approx(0.0377, abs=1e-3)
    assert result.interval[0] < result.mean < result.interval[1]
    assert paired_difference([1.0, 1.0], [1.0, 1.0]).p_value == 1.0


def test_overlap_by_text_by_swapped_pair_and_by_template() -> None:
    train = [row("甲 乙"), row("x", text_pair="y"), row("z", template="t1")]
    held = [
        row("甲\u3000乙"), row("甲"), row("y", text_pair="x"), row("x"),
        row("q", template="t1"), row("q", template="t2"),
    ]  # fmt: skip
    assert find_overlap(train, held) == [True, False, True, False, True, False]


def scored(
    gold: Sequence[str], answers: Sequence[Sequence[str]], overlap: Sequence[bool] | None = None
) -> Score:
    about = Scored(
        task=make_task(), runner="finetune", seeds=tuple(range(len(answers))), checkpoint="c",
        checkpoint_digest="d", split_hash="h", num_train=9, num_excluded=1, seconds=1.0,
    )  # fmt: skip
    rows = [row(str(n), label) for n, label in enumerate(gold)]
    given = [[Answer(value=value, is_truncated=False) for value in seed] for seed in answers]
    return score_answers(about, rows, overlap or [False] * len(rows), given)


def test_overlapping_rows_are_left_out_and_counted() -> None:
    score = scored(["a", "b", "a", "b"], [["a", "b", "b", "b"]], [True, False, False, True])
    assert (score.value, score.num_rows, score.num_correct) == (0.5, 2, 1)
    assert (score.value_all_rows, score.num_all_rows, score.num_overlap) == (0.75, 4, 2)
    assert (score.majority_label, score.majority_value) == ("a", 0.5)


def test_seeds_are_averaged_and_the_first_is_judged() -> None:
    score = scored(["a", "b"], [["a", "a"], ["a", "b"]])
    assert score.seed_values == (0.5, 1.0)
    assert score.value == 0.75
    assert score.num_correct == 1
    assert score.p_value == pytest.approx(0.75)


def test_no_clean_row_is_no_score() -> None:
    score = scored(["a"], [["a"]], [True])
    assert (score.value, score.num_rows, score.p_value) == (0.0, 0, 1.0)


def judged(p_value: float, rows: int, runner: str = "finetune", value: float = 0.5) -> Score:
    base = scored(["a", "b"], [["a", "b"]])
    fields = {"p_value": p_value, "num_rows": rows, "runner": runner}
    return base.model_copy(update={**fields, "value": value, "seed_values": (value,)})


@pytest.mark.parametrize(
    ("p_value", "rows", "has_passed", "text"),
    [
        (0.0005, 300, True, "majority 0.500 (a), p = 0.0005"),
        (0.001, 300, False, "not above the majority at p < 0.001"),
        (0.0005, 299, False, "fewer than 300 held-out rows without overlap"),
    ],
)
def test_the_gate(p_value: float, rows: int, has_passed: bool, text: str) -> None:
    result = decide_gate([judged(p_value, rows)], GateSpec(), ServingSpec(), task="t")
    assert result.has_passed is has_passed
    assert text in result.reason


def test_choosing_the_best_costs_its_share_of_p() -> None:
    scores = [judged(0.0006, 400, value=0.6), judged(0.0001, 400, "ngram", 0.7)]
    best = ServingSpec.model_validate({"runner": "best"})
    result = decide_gate(scores, GateSpec(), best, task="t")
    assert (result.runner, result.p_value, result.has_passed) == ("ngram", 0.0002, True)
    scores[1] = judged(0.0006, 400, "ngram", 0.7)
    assert not decide_gate(scores, GateSpec(), best, task="t").has_passed


def test_the_gate_judges_the_first_seed_and_tells_the_mean() -> None:
    seeds = {"seeds": (1, 2), "seed_values": (0.5, 0.9), "value": 0.7, "interval": (0.4, 0.6)}
    scores = [judged(0.0001, 400).model_copy(update=seeds), judged(0.0001, 400, "ngram", 0.6)]
    best = ServingSpec.model_validate({"runner": "best"})
    assert decide_gate(scores, GateSpec(), best, task="t").runner == "ngram"
    reason = decide_gate(scores, GateSpec(), ServingSpec(), task="t").reason
    assert "accuracy 0.500 [0.400, 0.600] on 400 rows" in reason
    assert reason.endswith("; mean of 2 seeds 0.700")


def test_a_gate_that_is_off_says_so() -> None:
    off = GateSpec.model_validate({"is_enabled": False})
    result = decide_gate([judged(0.9, 3)], off, ServingSpec(), task="t")
    assert result.has_passed
    assert "the gate is off" in result.reason


def test_a_task_that_was_not_scored_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nothing was scored that way; scored: t by finetune"):
        decide_gate([judged(0.1, 3)], GateSpec(), ServingSpec(), task="other")


def test_tasks_are_found_by_walking_and_are_complete() -> None:
    assert set(all_tasks()) == {"tnews", "eprstmt", "ocnli", "afqmc", "chnsenticorp"}
    for name, task in all_tasks().items():
        assert name == task.name
        assert task.source
        assert task.licence
        assert len(task.spec.labels) >= 2
    assert find_task("tnews").label_titles["103"] == "体育"
    assert len(find_task("tnews").spec.labels) == 15
    assert not {"105", "111"} & set(find_task("tnews").spec.labels)


def test_suites_resolve_once_and_unknown_names_get_the_nearest() -> None:
    tasks = resolve_tasks(["tnews", "classification"])
    assert [task.name for task in tasks] == list(SUITES["classification"])
    with pytest.raises(UnknownNameError, match="did you mean 'tnews'"):
        resolve_tasks(["tnew"])


def _write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(item, ensure_ascii=False) for item in rows)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_rows_of_a_task_are_read_and_excluded_ones_counted(tmp_path: Path) -> None:
    task = make_task(excluded=frozenset({"-"}))
    _write_rows(
        tmp_path, "train.json", [{"text": "一", "label": "a"}, {"text": "二", "label": "-"}]
    )
    _write_rows(tmp_path, "test.json", [{"text": "一", "label": "b"}, {"text": "三", "label": "-"}])
    rows = read_task_rows(task, str(tmp_path))
    assert [len(rows.train), len(rows.held_out), rows.num_excluded] == [1, 1, 2]
    assert rows.has_overlap == [True]
    assert rows.submission == []
    assert [entry.path for entry in rows.files] == ["train.json", "test.json"]


def test_a_label_outside_the_set_names_file_line_and_value(tmp_path: Path) -> None:
    _write_rows(tmp_path, "train.json", [{"text": "一", "label": "c"}])
    with pytest.raises(DataError, match=r"train.json: 1 wrong rows:\s+line 1: label = 'c'"):
        read_task_rows(make_task(), str(tmp_path))


def test_missing_files_are_named_before_anything_starts(tmp_path: Path) -> None:
    spec = resolve_spec(
        yaml.safe_dump(tiny_spec(tmp_path, data__root=str(tmp_path), evaluation__tasks=["tnews"]))
    )
    with pytest.raises(DataError) as caught:
        check_files(spec)
    assert "labelled_8000.json (task tnews)" in str(caught.value)
    assert "is data.root right?" in str(caught.value)


def _board_task() -> Task:
    board = Submission(input="board.json", file_name="t_predict.json", source="s")
    return make_task(submission=board)


def _answers(*values: str) -> list[Answer]:
    return [Answer(value=value, is_truncated=False) for value in values]


def test_submissions_keep_order_ids_and_types(tmp_path: Path) -> None:
    rows = [{"id": 7, "text": "一"}, {"id": 3, "text": "二"}, {"id": 7, "text": "三"}]
    _write_rows(tmp_path, "board.json", rows)
    path = write_submission(
        _board_task(), tmp_path / "board.json", _answers("a", "b", "a"), tmp_path / "out"
    )
    assert path.read_text() == (
        '{"id": 7, "label": "a"}\n{"id": 3, "label": "b"}\n{"id": 7, "label": "a"}\n'
    )
    check_submission(_board_task(), tmp_path / "board.json", path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"id": 7, "label": "a"}\n', "1 lines, the board expects 2"),
        ('{"id": 7, "label": "a"}\n{"id": 4, "label": "a"}\n', "line 2: id 4, expected 3"),
        ('{"id": 7, "label": "a"}\n{"id": "3", "label": "a"}\n', "line 2: id '3', expected 3"),
        ('{"id": 7, "label": "a"}\n{"id": 3, "label": "c"}\n', "line 2: label 'c' is not one of"),
        ('{"id": 7, "label": "a"}\n{"id": 3}\n', "line 2: label None is not one of"),
    ],
)
def test_a_wrong_submission_is_explained(text: str, problem: str, tmp_path: Path) -> None:
    _write_rows(tmp_path, "board.json", [{"id": 7, "text": "一"}, {"id": 3, "text": "二"}])
    (tmp_path / "x").write_text(text)
    with pytest.raises(DataError, match=problem):
        check_submission(_board_task(), tmp_path / "board.json", tmp_path / "x")


def test_a_wrong_number_of_answers_is_refused(tmp_path: Path) -> None:
    _write_rows(tmp_path, "board.json", [{"id": 7, "text": "一"}])
    with pytest.raises(DataError, match="1 rows but 2 answers"):
        write_submission(_board_task(), tmp_path / "board.json", _answers("a", "b"), tmp_path)


def _fit(task: Task, rows: list[Example], tmp_path: Path) -> list[Answer]:
    workspace = Workspace(str(tmp_path / "ngram"))
    fit_ngram(task, rows, seed=1, run="r", workspace=workspace, parents=())
    return answer_rows(load_predictor(workspace.uri), rows, ALONE)


def test_the_ngram_model_learns_labels_pairs_and_spans(tmp_path: Path) -> None:
    words = {"a": ["很好看", "真喜欢", "非常棒"], "b": ["太差了", "不好用", "很失望"]}
    rows = [
        row(f"这个{n}{w}。", label) for label, ws in words.items() for w in ws for n in range(9)
    ]
    assert [answer.value for answer in _fit(make_task(), rows, tmp_path / "c")] == [
        r.label for r in rows
    ]
    pair = TaskSpec(name="t", family=Family.PAIR, text_pair="p", labels=("a", "b"))
    pairs = [
        row(f"问题{w}吗", "a" if same else "b", text_pair=f"请问{w}？" if same else "别的事情")
        for w in ("发货", "退款", "尺码", "颜色") for same in (True, False)
    ] * 3  # fmt: skip
    found = _fit(make_task(spec=pair), pairs, tmp_path / "p")
    assert [answer.value for answer in found] == [r.label for r in pairs]
    tag = TaskSpec(name="t", family=Family.TAG, label="entities", labels=("物",))
    tagged = [
        row(f"买了{w}很好", None, entities=(Entity(start=2, end=2 + len(w), type="物"),))
        for w in ("耳机", "台灯", "键盘", "书包")
    ] * 4
    found = _fit(make_task(spec=tag), tagged, tmp_path / "t")
    assert [answer.value for answer in found] == [r.gold for r in tagged]


TWO_ROWS = [row("很好", "a"), row("太差", "b")]


def test_a_saved_ngram_model_is_arrays_and_json(tmp_path: Path) -> None:
    _fit(make_task(), TWO_ROWS * 5, tmp_path)
    names = sorted(path.name for path in (tmp_path / "ngram/model").iterdir())
    assert names == ["ngrams.json", "ngrams.safetensors"]


def test_two_rows_are_enough_for_the_ngram_model(tmp_path: Path) -> None:
    assert [answer.value for answer in _fit(make_task(), TWO_ROWS, tmp_path)] == ["a", "b"]
    rare = [row(chr(0x4E00 + number), "ab"[number % 2]) for number in range(120)]
    assert [answer.value for answer in _fit(make_task(), rare, tmp_path / "rare")] == [
        r.label for r in rare
    ]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([row("很好"), row("不错")], "t: all 2 training rows have the same answer, 'a'"),
        ([row("\u200b", "a"), row("\u200b", "b")], "nothing but white space in 2 training texts"),
    ],
)
def test_rows_without_anything_to_learn_are_a_data_error(
    rows: list[Example], text: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=text):
        _fit(make_task(), rows, tmp_path)


def test_tagged_rows_without_entities_are_a_data_error(tmp_path: Path) -> None:
    tag = TaskSpec(name="t", family=Family.TAG, label="entities", labels=("物",))
    with pytest.raises(DataError, match="t: all 2 training rows have the same answer, ''"):
        _fit(make_task(spec=tag), [row("很好", None, entities=())] * 2, tmp_path)


def test_the_ngram_model_of_a_full_disk_is_a_storage_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="disk full: cannot write .*ngrams.json"):
        _fit(make_task(), TWO_ROWS, tmp_path)


def test_the_ngram_model_records_its_limit_and_keeps_it(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    record = fit_ngram(make_task(), TWO_ROWS, seed=1, run="r", workspace=workspace, parents=())
    assert isinstance(record, CheckpointRecord)
    assert record.max_tokens == 100_000
    answers = load_predictor(workspace.uri).predict(["好" * 100_000, "好" * 100_001])
    assert [answer.is_truncated for answer in answers] == [False, True]


def test_many_classes_keep_their_weights(tmp_path: Path) -> None:
    """A Fortran-ordered array written as it stands would come back scrambled."""
    labels = tuple("abcdefgh")
    task = make_task(spec=TaskSpec(name="t", labels=labels))
    rows = [row(f"{letter}{letter}词{n}", letter) for letter in labels for n in range(6)]
    answers = _fit(task, rows, tmp_path)
    assert np.mean([answer.value == r.label for answer, r in zip(answers, rows, strict=True)]) == 1
