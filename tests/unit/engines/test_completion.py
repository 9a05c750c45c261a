from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pyfsb import records, storage, versions
from pyfsb.config import RunSpec, Stage, resolve_spec, stage_hash
from pyfsb.data.prepare import prepare
from pyfsb.engines import find_engine
from pyfsb.engines.completion import changed_keys, find_complete, read_spec, record_places
from pyfsb.engines.local import write_spec
from pyfsb.engines.serve import check_port
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.records import CheckpointRecord, EvalReport, FileEntry, Parent
from tests.helpers.models import PIECES
from tests.helpers.specs import tiny_spec
from tests.helpers.versions import put_version
from tests.unit.test_records import dataset


def make_spec(tmp_path: Path, **changes: object) -> RunSpec:
    return resolve_spec(yaml.safe_dump(tiny_spec(tmp_path / "out", **changes)))


def write_data(spec: RunSpec, **changes: object) -> str:
    place = record_places(spec, Stage.DATA)[0]
    files = [f for pattern in spec.data.corpus for f in storage.find_files(spec.data.root, pattern)]
    inputs = [FileEntry(path=file.path, num_bytes=file.num_bytes, xxh3="") for file in files]
    changes = {"inputs": tuple(inputs), **changes}
    record = dataset(config_hash=stage_hash(spec, Stage.DATA), **changes)
    records.write_record(record, place)
    return place


def eval_report(**changes: object) -> EvalReport:
    gate = {"task": "t", "runner": "finetune", "has_passed": True, "reason": "", "p_value": 0.1}
    fields: dict[str, object] = {
        "run": "r", "created_at": "x", "seconds": 1.0, "config_hash": "", "seeds": (1,),
        "model": "m", "num_parameters": 1, "scores": (), "gate": gate, "example": {},
    }  # fmt: skip
    return EvalReport.model_validate({**fields, **changes})


def test_a_stage_without_a_record_is_not_complete(tmp_path: Path) -> None:
    assert find_complete(make_spec(tmp_path), Stage.DATA, None) is None
    assert find_complete(make_spec(tmp_path), Stage.LEADERBOARD, None) is None


def test_a_record_with_the_same_settings_is_kept(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    place = write_data(spec)
    found = find_complete(spec, Stage.DATA, None)
    assert found is not None
    assert found.was_complete
    assert found.places == (place,)


def test_other_settings_are_named_key_by_key(tmp_path: Path) -> None:
    before = make_spec(tmp_path)
    write_data(before)
    write_spec(before)
    after = make_spec(tmp_path, data__min_characters=9)
    with pytest.raises(ConfigError, match=r"other settings \(data.min_characters: 5 → 9\)"):
        find_complete(after, Stage.DATA, read_spec(after.output))


def test_inputs_that_changed_their_size_are_named(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("abc")
    spec = make_spec(tmp_path, data__root=str(tmp_path), data__corpus=["*.txt"])
    write_data(spec)
    assert find_complete(spec, Stage.DATA, None)
    (tmp_path / "raw.txt").write_text("abcd")
    with pytest.raises(ConfigError, match=r"raw.txt with 3 bytes; it has 4 now"):
        find_complete(spec, Stage.DATA, None)
    (tmp_path / "raw.txt").unlink()
    with pytest.raises(ConfigError, match="which is gone or not named"):
        find_complete(spec, Stage.DATA, None)


def test_a_corpus_with_another_file_is_not_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    spec = make_spec(tmp_path, data__root=str(tmp_path), data__corpus=["a*.txt"])
    write_data(spec)
    (tmp_path / "b.txt").write_text("def")
    assert find_complete(spec, Stage.DATA, None)
    wider = make_spec(tmp_path, data__root=str(tmp_path), data__corpus=["*.txt"])
    with pytest.raises(ConfigError, match=r"without b.txt, which the spec names now"):
        find_complete(wider, Stage.DATA, None)


def _own_rows(tmp_path: Path, train: Path) -> RunSpec:
    return make_spec(
        tmp_path, data__train=str(train), data__corpus=[], data__task={"label": "label"},
        model__checkpoint=str(tmp_path / "base"), model__config={},
    )  # fmt: skip


def _write_rows(path: Path, word: str) -> Path:
    rows = [f"{number} {word} 文,{'好' if number % 2 else '坏'}" for number in range(40)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_other_rows_or_other_content_are_not_the_same(tmp_path: Path) -> None:
    mine = _write_rows(tmp_path / "mine.csv", "一")
    spec = _own_rows(tmp_path, mine)
    prepare(spec)
    assert find_complete(spec, Stage.DATA, None)
    other = _own_rows(tmp_path, _write_rows(tmp_path / "other.csv", "二"))
    with pytest.raises(ConfigError, match=r"without other.csv|from mine.csv"):
        find_complete(other, Stage.DATA, None)
    _write_rows(mine, "三")  # as many bytes as before
    with pytest.raises(ConfigError, match=r"from mine.csv with other content"):
        find_complete(spec, Stage.DATA, None)


def test_another_vocabulary_in_the_same_file_is_not_the_same(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    spec = make_spec(tmp_path, data__vocabulary={"file": str(vocabulary)})
    prepare(spec)
    assert find_complete(spec, Stage.DATA, None)
    vocabulary.write_text("\n".join([*PIECES[:-1], "##orle"]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"from vocab.txt with other content"):
        find_complete(spec, Stage.DATA, None)


def test_other_first_weights_are_not_the_same(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"1")
    spec = _own_rows(tmp_path, _write_rows(tmp_path / "mine.csv", "一"))
    place = spec.output_of(Stage.EVALUATION)
    link = records.link_weights(base, str(base), base=place, root=spec.output)
    report = eval_report(config_hash=stage_hash(spec, Stage.EVALUATION), parents=(link,))
    records.write_record(report, place)
    assert find_complete(spec, Stage.EVALUATION, None)
    (base / "model.safetensors").write_bytes(b"2")
    with pytest.raises(ConfigError, match="started from other weights than those in"):
        find_complete(spec, Stage.EVALUATION, None)


def test_task_files_that_changed_are_named(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, data__root=str(tmp_path), evaluation__tasks=["tnews"])
    (tmp_path / "dev.json").write_text("abc")
    place = spec.output_of(Stage.EVALUATION)
    rows = dataset(inputs=records.describe_files(tmp_path, [tmp_path / "dev.json"]))
    data_uri = storage.join(place, "tnews/data")
    records.write_record(rows, data_uri)
    link = records.link(rows, data_uri, base=place, root=spec.output)
    report = eval_report(config_hash=stage_hash(spec, Stage.EVALUATION), parents=(link,))
    records.write_record(report, place)
    assert find_complete(spec, Stage.EVALUATION, None)
    (tmp_path / "dev.json").write_text("abcd")
    with pytest.raises(ConfigError, match=r"from dev.json with 3 bytes; it has 4 now"):
        find_complete(spec, Stage.EVALUATION, None)


def test_a_result_of_other_data_is_refused(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    write_data(spec)
    parent = Parent(kind="DatasetRecord", uri="../data/corpus", digest="sha256:other")
    record = CheckpointRecord(
        run="r", created_at="x", seconds=1.0, config_hash=stage_hash(spec, Stage.TRAINING),
        seeds=(1,), parents=(parent,), model="m", architecture="a", family="fill_mask",
        objective="whole_word", num_parameters=1, step=1, num_samples=1, num_tokens=1, loss=1.0,
        max_tokens=8, vocabulary_digest="v",
    )  # fmt: skip
    records.write_record(record, spec.output_of(Stage.TRAINING))
    with pytest.raises(ConfigError, match="made from another DatasetRecord than the one in"):
        find_complete(spec, Stage.TRAINING, None)


def test_changed_keys_go_deep() -> None:
    before = {"a": {"b": 1, "c": [1]}, "d": 2}
    after = {"a": {"b": 1, "c": [2]}, "e": 3}
    assert changed_keys(before, after) == ["a.c: [1] → [2]", "d: 2 → None", "e: None → 3"]


def test_engines_are_found_by_entry_point() -> None:
    from pyfsb.engines.local import run

    assert find_engine("local") is run
    assert find_engine("kfp-local").__module__ == "pipelines.local_engine"
    with pytest.raises(UnknownNameError, match="unknown engine 'locl'; did you mean 'local'"):
        find_engine("locl")


def test_a_taken_port_is_named_before_anything_runs(tmp_path: Path, free_port: int) -> None:
    import socket

    spec = make_spec(tmp_path, serving__port=free_port)
    check_port(spec)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        with pytest.raises(ConfigError, match=f"serving.port = {free_port}: cannot listen on"):
            check_port(spec)


def test_an_alias_that_moved_names_other_first_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(tmp_path / "models")
    monkeypatch.setenv("FSB_MODEL_STORE", store)
    for number in (1, 2):
        base = tmp_path / f"base{number}"
        base.mkdir()
        (base / "config.json").write_text("{}")
        (base / "model.safetensors").write_bytes(bytes([number]))
        put_version(store, number, checkpoint=str(base))
    versions.promote("sentiment@1", "production", ignores_gate=True)
    spec = _own_rows(tmp_path, _write_rows(tmp_path / "mine.csv", "一"))
    model = spec.model.model_copy(update={"checkpoint": "sentiment@production"})
    spec = spec.model_copy(update={"model": model})
    place = spec.output_of(Stage.EVALUATION)
    link = records.link_weights(
        tmp_path / "base1", str(tmp_path / "base1"), base=place, root=spec.output
    )
    report = eval_report(config_hash=stage_hash(spec, Stage.EVALUATION), parents=(link,))
    records.write_record(report, place)
    assert find_complete(spec, Stage.EVALUATION, None)
    versions.promote("sentiment@2", "production", ignores_gate=True)
    with pytest.raises(ConfigError, match="started from other weights than those in .*base2"):
        find_complete(spec, Stage.EVALUATION, None)
