"""A mixture's rows, its scores of every set and together, and what fine-tuning makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pyfsb import records
from pyfsb.config import (
    BatchSpec,
    FinetuneSpec,
    ParallelismSpec,
    RunSpec,
    TrainingSpec,
    resolve_spec,
)
from pyfsb.data.prepare import prepare
from pyfsb.errors import ConfigError, DataError
from pyfsb.evaluation.finetune import Base, Finetuning, _build_order, _split_rows
from pyfsb.evaluation.mixtures import EACH_MAJORITY, describe_sets, read_sets, score_sets
from pyfsb.evaluation.predict import Answer
from pyfsb.evaluation.rows import TaskRows, check_files, read_task_rows, tasks_of
from pyfsb.evaluation.scoring import Scored
from pyfsb.evaluation.suites import resolve_tasks
from pyfsb.records import DatasetRecord
from pyfsb.storage.workspace import Workspace
from pyfsb.training.progress import Part

LABELS = ("好", "坏", "中")


def _write(folder: Path, name: str, rows: list[tuple[str, str]], text: str = "text") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({text: one, "label": label}) for one, label in rows)
    (folder / name).write_text("".join(f"{line}\n" for line in lines))


def _spec(folder: Path, tasks: tuple[str, ...] = (), **sets: Any) -> RunSpec:
    _write(folder, "a.json", [(f"甲{n}", "好坏"[n % 2]) for n in range(12)])
    _write(folder, "a-test.json", [(f"乙{n}", "好坏"[n % 3 == 0]) for n in range(6)])
    _write(folder, "b.json", [(f"丙{n}", "012"[n % 3]) for n in range(6)])
    _write(folder, "b-test.json", [("丁0", "2"), ("丁1", "2"), ("丁2", "0")])
    names = {"0": "好", "1": "坏", "2": "中"}
    parts = [
        {"name": "a", "train": "a.json", "test": "a-test.json", "label_map": {"好": "好", "坏": "坏"}},
        {"name": "b", "train": "b.json", "test": "b-test.json", "label_map": names, **sets},
    ]  # fmt: skip
    value = {
        "name": "x", "output": str(folder / "run"), "evaluation": {"tasks": list(tasks)},
        "model": {"name": "Erlangshen-MegatronBert-1.3B", "checkpoint": "w"},
        "data": {
            "root": str(folder),
            "mixture": {"name": "mood", "labels": list(LABELS), "sets": parts},
        },
    }  # fmt: skip
    return resolve_spec(yaml.safe_dump(value, allow_unicode=True))


def _rows(spec: RunSpec) -> TaskRows:
    prepare(spec)
    others = {
        task.name: read_task_rows(task, spec.data.root)
        for task in resolve_tasks(spec.evaluation.tasks)
    }
    return read_sets(spec, others)


def test_the_rows_of_all_sets_are_one_task(tmp_path: Path) -> None:
    spec = _spec(tmp_path, weight=5)
    rows = _rows(spec)
    (task,) = tasks_of(spec)
    assert (task.name, task.spec.labels, task.is_mixture) == ("mood", LABELS, True)
    assert [(len(rows.train), len(rows.held_out)), rows.has_overlap] == [(18, 9), [False] * 9]
    assert [(part.name, part.num_train, part.num_held_out) for part in rows.sets] == [
        ("a", 12, 6), ("b", 6, 3),
    ]  # fmt: skip
    assert [part.weight for part in rows.sets] == [None, 5.0]
    assert [part.labels for part in rows.sets] == [("好", "坏"), LABELS]
    assert len({rows.split_hash, *(part.split_hash for part in rows.sets)}) == 3


def test_what_a_registered_task_scores_is_not_trained_on(tmp_path: Path) -> None:
    reviews = [("甲3", "Positive"), ("丙 0", "Negative"), ("戊", "Positive")]
    _write(tmp_path, "fewclue/eprstmt/dev_few_all.json", reviews, "sentence")
    _write(tmp_path, "fewclue/eprstmt/train_few_all.json", [("己", "Positive")], "sentence")
    spec = _spec(tmp_path, ("eprstmt",))
    rows = _rows(spec)
    assert {"甲3", "丙0"}.isdisjoint(row.text for row in rows.train)
    assert [(part.num_train, part.num_left_out) for part in rows.sets] == [(11, 1), (5, 1)]
    record = describe_sets(spec, tasks_of(spec)[-1], rows, seconds=1.0)
    assert record.dropped == {
        "a: held out in task eprstmt": 1, "b: held out in task eprstmt": 1,
    }  # fmt: skip
    assert (record.num_read, record.num_kept) == (27, 25)
    assert (record.splits["a/train"], record.splits["train"]) == (11, 16)
    assert [entry.path for entry in record.inputs] == ["fewclue/eprstmt/dev_few_all.json"]
    prepared = records.read_record(str(tmp_path / "run/data/labelled"))
    assert isinstance(prepared, DatasetRecord)
    assert record.parents[0].digest == prepared.digest


def test_nothing_left_of_a_set_is_an_error(tmp_path: Path) -> None:
    _write(
        tmp_path,
        "fewclue/eprstmt/dev_few_all.json",
        [(f"丙{n}", "Positive") for n in range(6)],
        "sentence",
    )
    _write(tmp_path, "fewclue/eprstmt/train_few_all.json", [("己", "Positive")], "sentence")
    with pytest.raises(DataError, match="set b: 0 rows are left to train on and 3 to score"):
        _rows(_spec(tmp_path, ("eprstmt",)))


def test_a_mixture_with_the_name_of_a_task_is_refused(tmp_path: Path) -> None:
    spec = _spec(tmp_path, ("eprstmt",))
    prepare(spec)
    mixture = spec.data.mixture
    assert mixture
    data = spec.data.model_copy(update={"mixture": mixture.model_copy(update={"name": "eprstmt"})})
    prepared = records.read_record(str(tmp_path / "run/data/labelled"))
    assert isinstance(prepared, DatasetRecord)
    renamed = prepared.model_copy(update={"task": {**prepared.task, "name": "eprstmt"}})
    records.write_record(renamed, str(tmp_path / "run/data/labelled"))
    with pytest.raises(ConfigError, match="named 'eprstmt', as a registered one"):
        tasks_of(spec.model_copy(update={"data": data}))


def test_missing_files_of_a_mixture_are_named(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    (tmp_path / "b-test.json").unlink()
    with pytest.raises(DataError, match=r"b-test.json \(data.mixture\)"):
        check_files(spec)


def _score(rows: TaskRows, spec: RunSpec, values: str) -> list[Any]:
    about = Scored(
        task=tasks_of(spec)[-1], runner="finetune", seeds=(1,), checkpoint="c",
        checkpoint_digest="d", split_hash=rows.split_hash, num_train=len(rows.train),
        num_excluded=0, seconds=1.0,
    )  # fmt: skip
    return score_sets(about, rows, [[Answer(value=one, is_truncated=False) for one in values]])


def test_every_set_is_scored_by_itself_and_all_together(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    rows = _rows(spec)
    assert "".join(str(row.label) for row in rows.held_out) == "坏好好坏好好中中好"
    whole, first, second = _score(rows, spec, "坏好好好好好中好好")
    assert [score.task for score in (whole, first, second)] == ["mood", "mood/a", "mood/b"]
    assert [(s.num_correct, s.num_rows) for s in (whole, first, second)] == [(7, 9), (5, 6), (2, 3)]
    assert (first.majority_label, first.majority_value) == ("好", pytest.approx(4 / 6))
    assert (second.majority_label, second.majority_value) == ("中", pytest.approx(2 / 3))
    assert [s.num_train for s in (whole, first, second)] == [18, 12, 6]
    assert len({s.split_hash for s in (whole, first, second)}) == 3
    assert {s.checkpoint for s in (whole, first, second)} == {"c"}


def test_telling_the_sets_apart_does_not_beat_the_baseline_of_all(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    rows = _rows(spec)
    whole, *_ = _score(rows, spec, "好" * 6 + "中" * 3)
    assert (whole.majority_label, whole.majority_value) == (EACH_MAJORITY, pytest.approx(6 / 9))
    assert whole.value == pytest.approx(6 / 9)
    assert whole.p_value > 0.5


def test_a_set_is_judged_by_its_own_labels(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    _, first, _ = _score(_rows(spec), spec, "坏好好坏好好中中好")
    assert first.details["macro_f1"] == 1.0


def _work(rows: TaskRows, spec: RunSpec, settings: FinetuneSpec, **fields: Any) -> Finetuning:
    return Finetuning(
        base=Base(folder=Path("w"), model="m", uri="w"), task=tasks_of(spec)[-1],
        examples=rows.train, settings=settings, seed=1, run="x", workspace=Workspace("/nowhere"),
        parallelism=ParallelismSpec(), parents=(), training=TrainingSpec(),
        part=Part(task="mood", number=0, num_parts=1), sets=rows.sets, **fields,
    )  # fmt: skip


def _drawn(work: Finetuning, epochs: int) -> list[int]:
    """Return the numbers of samples of whole epochs, in their order."""
    order = _build_order(work, _split_rows(work))
    places = np.arange(order.num_samples)
    return [int(one) for epoch in range(epochs) for one in order.at(places, epoch)[0]]


def test_without_weights_every_row_comes_once_an_epoch(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    work = _work(_rows(spec), spec, FinetuneSpec())
    drawn = _drawn(work, 2)
    assert sorted(drawn[:18]) == sorted(drawn[18:]) == list(range(18))
    assert drawn[:18] != drawn[18:]


@pytest.mark.parametrize(
    ("weight", "temperature", "share"), [(12.0, 1.0, 9), (None, 1e6, 9), (4, 1.0, 4.5)]
)
def test_weights_and_temperature_decide_how_often_a_set_is_seen(
    weight: float | None, temperature: float, share: float, tmp_path: Path
) -> None:
    spec = _spec(tmp_path, weight=weight)
    work = _work(_rows(spec), spec, FinetuneSpec(), temperature=temperature)
    drawn = _drawn(work, 4)
    assert sum(number >= 12 for number in drawn) == pytest.approx(4 * share, abs=4)
    counts = np.bincount(drawn, minlength=18)
    assert np.ptp(counts[12:]) <= 1  # a set goes round all of its rows before one comes again
    assert np.ptp(counts[:12]) <= 1


def test_weights_are_part_of_what_a_finetuning_is(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    rows = _rows(spec)
    work = _work(rows, spec, FinetuneSpec())
    other = replace(rows.sets[0], weight=2.0)
    assert work.config_hash != replace(work, sets=(other, rows.sets[1])).config_hash
    assert work.config_hash != replace(work, temperature=2.0).config_hash


PATIENT = FinetuneSpec(patience=2, validation_ratio=0.3, batch=BatchSpec(tokens=64))


def test_patience_holds_rows_out_of_the_training_rows_only(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    rows = _rows(spec)
    work = _work(rows, spec, PATIENT)
    split = _split_rows(work)
    assert sorted(row.text for row in split.examples) == sorted(row.text for row in rows.train)
    num_train = sum(split.num_train)
    assert len(split.examples) - num_train == 5
    owners = ["a" if row.text[0] == "甲" else "b" for row in split.examples[:num_train]]
    assert split.num_train == [owners.count("a"), owners.count("b")]
    assert owners == sorted(owners)
    labels = {(owner, row.label) for owner, row in zip(owners, split.examples, strict=False)}
    assert len(labels) == 5  # every label of every set is still learned
    assert max(_drawn(work, 3)) < num_train
    assert [row.id for row in _split_rows(work).examples] == [row.id for row in split.examples]


def test_without_patience_no_row_is_held_out(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    split = _split_rows(_work(_rows(spec), spec, FinetuneSpec()))
    assert split.num_train == [12, 6]


def test_rows_of_one_text_are_validated_on_or_trained_on_but_not_both(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    rows = _rows(spec)
    work = _work(rows, spec, PATIENT)
    twice = [
        *rows.train[:12],
        *(row.model_copy(update={"text": f"甲{n}"}) for n, row in enumerate(rows.train[12:])),
    ]
    split = _split_rows(replace(work, examples=twice))
    num_train = sum(split.num_train)
    keys = [
        {row.key for row in part}
        for part in (split.examples[:num_train], split.examples[num_train:])
    ]
    assert keys[1]
    assert keys[0].isdisjoint(keys[1])


def test_too_few_rows_to_validate_on_are_a_data_error(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    rows = _rows(spec)
    work = replace(_work(rows, spec, PATIENT), examples=rows.train[:2], sets=())
    with pytest.raises(DataError, match="mood: of 2 training rows none can be held out"):
        _split_rows(work)
