"""The model store: on a disk, on S3 that keeps conditions, on S3 that does not."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyfsb import records, storage, versions
from pyfsb.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    GateError,
    UnknownNameError,
)
from pyfsb.records import CheckpointRecord, EvalReport, Parent, Score
from pyfsb.versions import Alias, Move
from tests.helpers.versions import gate, put_version
from tests.unit.engines.test_completion import eval_report


def write_run(output: str, *, has_passed: bool = True, step: int = 1) -> tuple[str, EvalReport]:
    """Write the records of a run: pretrained and fine-tuned weights, and a report on them."""
    base, tuned = f"{output}/training", f"{output}/evaluation/t/finetune-42"
    records.write_record(weights(step), base)
    link = Parent(kind="CheckpointRecord", uri="../../../training", digest=weights(step).digest)
    record = weights(step, task="t", parents=(link,))
    records.write_record(record, tuned)
    parents = (link.model_copy(update={"uri": "../training"}),)
    report = eval_report(
        gate=gate(has_passed), parents=parents,
        scores=(make_score(checkpoint_digest=record.digest),),
    )  # fmt: skip
    records.write_record(report, f"{output}/evaluation")
    return tuned, report


def weights(step: int, **changes: object) -> CheckpointRecord:
    fields: dict[str, object] = {
        "run": "r", "created_at": "x", "seconds": 1.0, "config_hash": "", "seeds": (1,),
        "model": "m", "architecture": "a", "family": "classify", "objective": "o",
        "num_parameters": 1, "step": step, "num_samples": 1, "num_tokens": 1, "loss": None,
        "max_tokens": 8, "vocabulary_digest": "",
    }  # fmt: skip
    return CheckpointRecord.model_validate({**fields, **changes})


def make_score(**changes: object) -> Score:
    fields: dict[str, object] = {
        "task": "t", "task_version": "1", "runner": "finetune", "metric": "accuracy",
        "value": 0.9, "num_rows": 300, "num_correct": 270, "interval": (0.8, 0.95),
        "seeds": (42,), "seed_values": (0.9,), "majority_label": "a", "majority_value": 0.5,
        "p_value": 1e-9, "value_all_rows": 0.9, "num_all_rows": 300, "num_overlap": 0,
        "num_train": 10, "num_excluded": 0, "num_truncated": 0, "is_degenerate": False,
        "checkpoint": "t/finetune-42", "checkpoint_digest": "", "split_hash": "x", "seconds": 1.0,
    }  # fmt: skip
    return Score.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sentiment@production", True), ("sentiment@3", True), ("a.b-c_1@x", True),
        ("runs/sentiment@3", False), ("./a@b", False), ("s3://bucket/a@b", False), ("a@", False),
        ("@b", False), ("a@b@c", False), ("Erlangshen-110M", False), ("a @b", False),
    ],
)  # fmt: skip
def test_what_is_a_reference(text: str, expected: bool) -> None:
    assert versions.is_reference(text) is expected


def test_a_version_carries_what_its_run_knows(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    tuned, report = write_run(str(tmp_path / "out"))
    found = versions.register("sentiment", tuned, note="first", store=store)
    assert (found.reference, found.note, found.task) == ("sentiment@1", "first", "t")
    assert found.digest == records.read_record(tuned).digest
    assert found.evaluation == str(tmp_path / "out/evaluation")
    assert (found.evaluation_digest, found.gate) == (report.digest, report.gate)
    assert [(s.task, s.value, s.num_rows) for s in found.scores] == [("t", 0.9, 300)]
    assert [parent.uri for parent in found.parents] == [str(tmp_path / "out/training")]
    assert versions.resolve("sentiment@1", store) == found
    base = versions.register("base", str(tmp_path / "out/training"), store=store)
    assert base.gate == report.gate
    assert (tmp_path / "models/sentiment/versions/000001.json").is_file()


def test_the_same_thing_is_registered_once_and_another_gets_a_number(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    tuned, _ = write_run(str(tmp_path / "a"))
    other, _ = write_run(str(tmp_path / "b"), step=2)
    numbers = [
        versions.register("x", place, note=note, store=store).number
        for place, note in ((tuned, ""), (tuned, ""), (other, ""), (tuned, ""), (tuned, "again"))
    ]
    assert numbers == [1, 1, 2, 1, 3]
    assert [found.number for found in versions.list_versions("x", store)] == [1, 2, 3]


def test_a_report_must_be_about_the_checkpoint(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    tuned, _ = write_run(str(tmp_path / "a"))
    write_run(str(tmp_path / "b"), step=2)
    with pytest.raises(DataError, match="is not about .*finetune-42"):
        versions.register("x", tuned, evaluation=str(tmp_path / "b/evaluation"), store=store)
    with pytest.raises(DataError, match="holds a CheckpointRecord, expected an EvalReport"):
        versions.register("x", tuned, evaluation=str(tmp_path / "a/training"), store=store)
    alone = str(tmp_path / "alone")
    records.write_record(weights(9), alone)
    assert versions.register("x", alone, store=store).gate is None


def test_what_is_no_checkpoint_or_no_name_is_refused(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    write_run(str(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="holds a EvalReport"):
        versions.register("x", str(tmp_path / "a/evaluation"), store=store)
    with pytest.raises(CheckpointError, match=r"neither a record.json nor a config.json"):
        versions.register("x", str(tmp_path / "nothing"), store=store)
    with pytest.raises(ConfigError, match="name of a model 'a/b'"):
        versions.register("a/b", str(tmp_path / "a/training"), store=store)
    put_version(store, 1, name="x", gate=gate(True))
    for alias, words in (("a b", "alias 'a b'"), ("7", "a number names a version")):
        with pytest.raises(ConfigError, match=words):
            versions.promote("x@1", alias, store=store)


def test_aliases_move_and_come_back(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    for number in (1, 2, 3):
        put_version(store, number, gate=gate(True))
    for number in (1, 2, 2, 3):
        versions.promote(f"sentiment@{number}", "production", store=store)
    assert versions.resolve("sentiment@production", store).number == 3
    assert versions.rollback("sentiment", "production", store=store).version == 2
    assert versions.rollback("sentiment", "production", note="bad", store=store).version == 1
    with pytest.raises(DataError, match="has stood for no version before 1"):
        versions.rollback("sentiment", "production", store=store)
    versions.promote("sentiment@3", "production", store=store)
    assert versions.rollback("sentiment", "production", store=store).version == 1
    (alias,) = versions.list_aliases("sentiment", store)
    assert [(move.action, move.version) for move in alias.moves] == [
        ("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2), ("rollback", 1),
        ("promote", 3), ("rollback", 1),
    ]  # fmt: skip
    versions.promote("sentiment@production", "staging", store=store)
    assert versions.resolve("sentiment@staging", store).number == 1


def test_a_gate_that_did_not_pass_is_ignored_only_on_demand(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    put_version(store, 1, gate=gate(False))
    put_version(store, 2)
    for number, words in ((1, "the figures"), (2, "it has no evaluation report")):
        with pytest.raises(GateError, match=f"is not promoted to 'p': {words}; .*--ignore-gate"):
            versions.promote(f"sentiment@{number}", "p", store=store)
    alias = versions.promote("sentiment@2", "p", ignores_gate=True, store=store)
    assert alias.moves[-1].ignored_gate
    put_version(store, 3, gate=gate(True))
    alias = versions.promote("sentiment@3", "p", ignores_gate=True, store=store)
    assert not alias.moves[-1].ignored_gate


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("sentimant@1", "unknown model in .*; did you mean 'sentiment'"),
        ("sentimant@x", "unknown model in .*; did you mean 'sentiment'"),
        ("sentiment@2", r"unknown version of sentiment \(known: 1\) '2'"),
        ("sentiment@prodction", r"\(known: production\) .*did you mean 'production'"),
    ],
)
def test_unknown_names_are_told_with_the_nearest(
    tmp_path: Path, reference: str, words: str
) -> None:
    store = str(tmp_path / "models")
    put_version(store, 1, gate=gate(True))
    versions.promote("sentiment@1", "production", store=store)
    with pytest.raises(UnknownNameError, match=words):
        versions.resolve(reference, store)


def test_the_store_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSB_MODEL_STORE", raising=False)
    assert versions.find_store() == str(tmp_path / "models")
    monkeypatch.setenv("FSB_MODEL_STORE", "s3://bucket/models")
    assert versions.find_store() == "s3://bucket/models"
    assert versions.find_store("here") == str(tmp_path / "here")


def test_a_document_that_is_none_is_told(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    place = put_version(store, 1)
    storage.write_text(f"{store}/{place.name}/versions/000001.json", "{}")
    with pytest.raises(DataError, match=r"000001.json is not usable: .*missing key 'name'"):
        versions.resolve("sentiment@1", store)


def test_weights_that_changed_since_they_were_registered_are_refused(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    tuned, _ = write_run(str(tmp_path / "out"))
    versions.register("x", tuned, store=store)
    assert versions.locate("x@1", store) == tuned
    assert versions.locate("some/folder", store) == "some/folder"
    records.write_record(weights(77, task="t"), tuned)
    with pytest.raises(CheckpointError, match="x@1 is version 1, registered as"):
        versions.locate("x@1", store)


def _promote_many(store: str, numbers: list[int]) -> None:
    for number in numbers:
        versions.promote(f"sentiment@{number}", "production", store=store)


def check_history(store: str, num_moves: int) -> None:
    (alias,) = versions.list_aliases("sentiment", store)
    assert len(alias.moves) == num_moves
    assert len({move.id for move in alias.moves}) == num_moves
    pairs = zip(alias.moves, alias.moves[1:], strict=False)
    assert all(one.version != other.version for one, other in pairs)


def test_several_processes_lose_no_move_on_a_disk(tmp_path: Path) -> None:
    store = str(tmp_path / "models")
    for number in range(1, 13):
        put_version(store, number, gate=gate(True))
    fork = multiprocessing.get_context("spawn")
    numbers = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    workers = [fork.Process(target=_promote_many, args=(store, some)) for some in numbers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        assert worker.exitcode == 0
    check_history(store, 12)


def race(store: str, tuned: list[str]) -> None:
    """Register and promote from several threads at once."""
    errors: list[BaseException] = []

    def work(place: str) -> None:
        try:
            version = versions.register("sentiment", place, store=store)
            versions.promote(version.reference, "production", store=store)
        except BaseException as exc:  # told by the test
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(place,)) for place in tuned]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    found = versions.list_versions("sentiment", store)
    assert [version.number for version in found] == [1, 2, 3, 4]
    assert len({version.digest for version in found}) == 4
    check_history(store, 4)


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    tuned = [write_run(str(tmp_path / str(step)), step=step)[0] for step in range(4)]
    race(str(tmp_path / "models"), tuned)


def test_several_writers_lose_nothing_on_s3(strict_s3: str) -> None:
    tuned = [write_run(f"{strict_s3}/{step}", step=step)[0] for step in range(4)]
    race(f"{strict_s3}/models", tuned)
    assert not [f.path for f in storage.list_files(strict_s3) if "probe" in f.path]


def test_a_store_that_ignores_conditions_is_written_only_by_a_single_writer(s3: str) -> None:
    tuned, _ = write_run(f"{s3}/out")
    store = f"{s3}/models"
    with pytest.raises(ConfigError, match="ignores If-Match and If-None-Match.*--single-writer"):
        versions.register("x", tuned, store=store)
    assert versions.register("x", tuned, store=store, is_single_writer=True).number == 1
    with pytest.raises(ConfigError, match="two writers would"):
        versions.promote("x@1", "production", store=store)
    versions.promote("x@1", "production", store=store, is_single_writer=True)
    assert versions.resolve("x@production", store).checkpoint == tuned
    with pytest.raises(ConfigError, match="two writers would"):
        versions.rollback("x", "production", store=store)


moves = st.lists(st.one_of(st.integers(1, 4), st.none()), max_size=12)


@given(moves)
def test_a_rollback_comes_back_to_where_the_alias_was(steps: list[int | None]) -> None:
    """The stack of an alias, against one that is kept by hand."""
    alias, expected = Alias(name="x", alias="y"), list[int]()
    for step in steps:
        if step is None and len(expected) < 2:
            continue
        if step is None:
            expected.pop()
        else:
            expected.append(step)
        action = "rollback" if step is None else "promote"
        move = Move(id="i", action=action, version=expected[-1], moved_at="t")
        alias = alias.model_copy(update={"moves": (*alias.moves, move)})
        assert (list(alias.stack), alias.version) == (expected, expected[-1])
