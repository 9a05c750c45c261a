from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyfsb import records, storage
from pyfsb.errors import CheckpointError, ConfigError, DataError, StorageError
from pyfsb.records import CheckpointRecord
from serving import fetch as module
from serving.fetch import fetch, storage_uri


def checkpoint(folder: Path, **changes: object) -> CheckpointRecord:
    """Write a checkpoint's files and record."""
    (folder / "model").mkdir(parents=True)
    (folder / "model/config.json").write_text("{}")
    (folder / "model/model.safetensors").write_bytes(os.urandom(3000))
    files = records.describe_files(folder, (folder / "model").iterdir())
    fields = {
        "run": "r", "created_at": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "config_hash": "c",
        "seeds": (1,), "files": files, "model": "m", "architecture": "megatron-bert",
        "family": "classify", "objective": "finetune", "num_parameters": 1, "step": 1,
        "num_samples": 1, "num_tokens": 1, "loss": 0.1, "max_tokens": 8, "vocabulary_digest": "v",
    }  # fmt: skip
    record = CheckpointRecord.model_validate({**fields, **changes})
    records.write_record(record, str(folder))
    return record


def put(folder: Path, prefix: str) -> str:
    """Upload a folder; returns its fsb+s3:// URI."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.upload(path, storage.join(prefix, path.relative_to(folder).as_posix()))
    return f"fsb+{prefix}/"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder that is there already, as a volume is."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_what_the_record_lists_comes_and_nothing_else(
    s3: str, tmp_path: Path, target: Path
) -> None:
    record = checkpoint(tmp_path / "source")
    (tmp_path / "source/state").mkdir()
    (tmp_path / "source/state/optimizer.safetensors").write_bytes(b"x")
    fetch(put(tmp_path / "source", s3), target)
    assert set(contents(target)) == {
        "record.json", "model/config.json", "model/model.safetensors",
    }  # fmt: skip
    assert records.read_record(str(target)) == record
    records.verify_files(record.files, target)


def test_a_folder_that_holds_it_is_only_checked(
    s3: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path / "source")
    uri = put(tmp_path / "source", s3)
    fetch(uri, target)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "download", lambda *_: pytest.fail("read again"))
        fetch(uri, target)
    (target / "model/config.json").write_text("changed")
    fetch(uri, target)
    assert (target / "model/config.json").read_text() == "{}"


def test_changed_bytes_leave_nothing(s3: str, tmp_path: Path, target: Path) -> None:
    checkpoint(tmp_path / "source")
    uri = put(tmp_path / "source", s3)
    storage.write_bytes(storage.join(s3, "model/model.safetensors"), b"0" * 3000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors differs from its record"):
        fetch(uri, target)
    assert list(target.iterdir()) == []


def test_a_missing_file_leaves_nothing(s3: str, tmp_path: Path, target: Path) -> None:
    checkpoint(tmp_path / "source")
    uri = put(tmp_path / "source", s3)
    storage.delete(storage.join(s3, "model/config.json"))
    with pytest.raises(DataError, match=r"model/config\.json: no such object"):
        fetch(uri, target)
    assert list(target.iterdir()) == []


def test_what_a_killed_try_left_is_no_part_of_the_next(
    s3: str, tmp_path: Path, target: Path
) -> None:
    checkpoint(tmp_path / "source")
    (target / ".fetching/model").mkdir(parents=True)
    (target / ".fetching/model/stale").write_text("x")
    fetch(put(tmp_path / "source", s3), target)
    assert "model/stale" not in contents(target)
    assert not (target / ".fetching").exists()


def test_the_record_is_put_in_place_last(
    s3: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path / "source")
    moved: list[str] = []
    replace = os.replace

    def watch(source: Path, place: Path) -> None:
        if Path(place).is_relative_to(target) and ".fetching" not in Path(place).parts:
            moved.append(Path(place).name)
        replace(source, place)

    monkeypatch.setattr(os, "replace", watch)
    fetch(put(tmp_path / "source", s3), target)
    assert moved[-1] == "record.json"
    assert len(moved) == 3


def test_a_bare_hugging_face_folder_is_taken_whole(s3: str, tmp_path: Path, target: Path) -> None:
    checkpoint(tmp_path / "source")
    fetch(put(tmp_path / "source/model", s3), target)
    assert contents(target) == contents(tmp_path / "source/model")


def test_nothing_there_is_told(s3: str, target: Path) -> None:
    with pytest.raises(DataError, match=r"neither a record\.json nor a config\.json"):
        fetch(f"fsb+{s3}", target)


def test_another_record_is_told(s3: str, target: Path) -> None:
    record = records.DatasetRecord(
        run="r", created_at="2026-01-01T00:00:00+00:00", seconds=1.0, config_hash="c", seeds=(),
        form="corpus", inputs=(), num_read=0, num_kept=0, dropped={},
    )  # fmt: skip
    records.write_record(record, s3)
    with pytest.raises(CheckpointError, match="holds a DatasetRecord"):
        fetch(f"fsb+{s3}", target)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ".fetching/x", ""])
def test_no_record_writes_outside_of_the_folder(
    path: str, s3: str, tmp_path: Path, target: Path
) -> None:
    entry = records.FileEntry(path=path, num_bytes=1, xxh3="0")
    checkpoint(tmp_path / "source", files=(entry,))
    with pytest.raises(CheckpointError, match="outside of its folder"):
        fetch(put(tmp_path / "source", s3), target)


@pytest.mark.parametrize("uri", ["gs://b/k", "/tmp/x", "fsb+gs://b/k", "hf://m", "pvc://c/p"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"expected fsb\+s3://bucket/folder/"):
        storage_uri(uri)


def test_both_spellings_of_an_object_store() -> None:
    assert storage_uri("fsb+s3://b/k/") == storage_uri("s3://b/k") == "s3://b/k"


def test_a_full_disk_can_be_tried_again(
    s3: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path / "source")
    uri = put(tmp_path / "source", s3)

    def full(*_: object) -> None:
        raise StorageError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "download", full)
        with pytest.raises(StorageError):
            fetch(uri, target)
    assert list(target.iterdir()) == []
    fetch(uri, target)
    assert (target / "record.json").is_file()


def test_the_door_takes_pairs_and_gives_our_exit_codes(
    s3: str, tmp_path: Path, target: Path
) -> None:
    checkpoint(tmp_path / "source")
    uri = put(tmp_path / "source", s3)

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "serving.fetch", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=50)

    done = ask(uri, str(target), uri, str(tmp_path / "second"))
    assert done.returncode == 0, done.stderr
    assert contents(target) == contents(tmp_path / "second")
    shutil.rmtree(target)
    missing = ask(f"fsb+{s3}/nowhere/", str(target))
    assert missing.returncode == 3
    assert missing.stderr.count("error: DataError") == 1
    assert ask(uri).returncode == 2


def test_it_loads_no_model_library() -> None:
    code = (
        f"import sys, {module.__name__}\n"
        "print(sorted({'torch', 'transformers', 'kserve', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
