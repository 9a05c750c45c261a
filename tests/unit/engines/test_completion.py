from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pyfsb import records
from pyfsb.config import RunSpec, Stage, resolve_spec, stage_hash
from pyfsb.engines import find_engine
from pyfsb.engines.completion import changed_keys, find_complete, read_spec, record_places
from pyfsb.engines.local import write_spec
from pyfsb.engines.serve import check_port
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.records import CheckpointRecord, Parent
from tests.helpers.specs import tiny_spec
from tests.unit.test_records import dataset


def make_spec(tmp_path: Path, **changes: object) -> RunSpec:
    return resolve_spec(yaml.safe_dump(tiny_spec(tmp_path / "out", **changes)))


def write_data(spec: RunSpec, **changes: object) -> str:
    place = record_places(spec, Stage.DATA)[0]
    record = dataset(config_hash=stage_hash(spec, Stage.DATA), **changes)
    records.write_record(record, place)
    return place


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
    spec = make_spec(tmp_path, data__root=str(tmp_path))
    (tmp_path / "raw.txt").write_text("abc")
    entry = records.describe_files(tmp_path, [tmp_path / "raw.txt"])
    write_data(spec, inputs=entry)
    assert find_complete(spec, Stage.DATA, None)
    (tmp_path / "raw.txt").write_text("abcd")
    with pytest.raises(ConfigError, match=r"raw.txt with 3 bytes; it has 4 now"):
        find_complete(spec, Stage.DATA, None)
    (tmp_path / "raw.txt").unlink()
    with pytest.raises(ConfigError, match="which is gone"):
        find_complete(spec, Stage.DATA, None)


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
