from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb import records
from pyfsb.errors import CheckpointError, DataError
from pyfsb.records import DatasetRecord, FileEntry


def dataset(**changes: object) -> DatasetRecord:
    fields: dict[str, object] = {
        "run": "a", "created_at": "2026-01-01T00:00:00+00:00", "seconds": 1.0,
        "config_hash": "sha256:1", "seeds": (1,), "form": "corpus", "inputs": (),
        "num_read": 2, "num_kept": 1, "dropped": {"empty": 1},
        "files": (FileEntry(path="x", num_bytes=1, xxh3="00"),),
    }  # fmt: skip
    return DatasetRecord.model_validate({**fields, **changes})


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = dataset()
    records.write_record(record, str(tmp_path))
    assert records.read_record(str(tmp_path)) == record
    assert records.read_record(str(tmp_path / "record.json")) == record


def test_the_digest_leaves_out_times_and_names_only() -> None:
    same = dataset(run="b", created_at="x", seconds=9.0, platform_version="9")
    assert same.digest == dataset().digest
    for change in (
        {"seeds": (2,)}, {"num_kept": 2}, {"config_hash": "y"},
        {"files": (FileEntry(path="x", num_bytes=1, xxh3="01"),)},
    ):  # fmt: skip
        assert dataset(**change).digest != dataset().digest


def test_the_digest_follows_the_parents_digest_but_not_their_place() -> None:
    def child(uri: str, digest: str) -> str:
        parent = records.Parent(kind="DatasetRecord", uri=uri, digest=digest)
        return dataset(parents=(parent,)).digest

    assert child("../a", "1") == child("/b", "1") != child("../a", "2")


def test_a_missing_record_means_not_complete(tmp_path: Path) -> None:
    assert records.find_record(str(tmp_path)) is None
    with pytest.raises(DataError, match="no such file"):
        records.read_record(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"digest": "x", "kind": "Other"}', "\xff"])
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError):
        records.read_record(str(tmp_path))


def test_a_changed_record_is_refused(tmp_path: Path) -> None:
    records.write_record(dataset(), str(tmp_path))
    path = tmp_path / "record.json"
    value = json.loads(path.read_text())
    value["num_kept"] = 7
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="does not match its content"):
        records.read_record(str(tmp_path))


def test_files_are_verified_by_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    files = records.describe_files(tmp_path, [tmp_path / "a"])
    records.verify_files(files, tmp_path)
    (tmp_path / "a").write_bytes(b"124")
    with pytest.raises(CheckpointError, match="differs from its record"):
        records.verify_files(files, tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        records.verify_files(files, tmp_path)


def test_links_are_relative_inside_a_run_and_absolute_outside(tmp_path: Path) -> None:
    run, base = tmp_path / "run", tmp_path / "run/training"
    inside = records.link(dataset(), str(run / "data"), base=str(base), root=str(run))
    outside = records.link(dataset(), str(tmp_path / "other"), base=str(base), root=str(run))
    assert (inside.uri, outside.uri) == ("../data", str(tmp_path / "other"))
