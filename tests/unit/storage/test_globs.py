from __future__ import annotations

from pathlib import Path

import pytest

from pyfsb import storage
from pyfsb.storage.uris import glob_matches, split_glob

NAMES = ("a.jsonl", "b.txt", "raw/c.jsonl", "raw/deep/d.jsonl", "raw/.hidden/e.jsonl", ".f.jsonl")


@pytest.mark.parametrize(
    "pattern",
    [
        "*.jsonl", "**/*.jsonl", "raw/*.jsonl", "raw/**/*.jsonl", "raw/*/*.jsonl", "[ab].*", "?.txt",
        "raw/c.jsonl", ".*.jsonl", "**", "raw/**", "none/*",
    ],
)  # fmt: skip
def test_patterns_mean_on_s3_what_they_mean_on_a_disk(pattern: str, tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    on_disk = [file.path for file in storage.find_files(str(tmp_path), pattern)]
    assert sorted(name for name in NAMES if glob_matches(pattern, name)) == on_disk


def test_fixed_folders_are_split_off() -> None:
    assert split_glob("a/b/*.txt") == ("a/b", "*.txt")
    assert split_glob("*.txt") == ("", "*.txt")
    assert split_glob("s3://b/k/x[0-9]") == ("s3://b/k", "x[0-9]")
    assert split_glob("a/b") == ("a/b", "")


def test_absolute_patterns_stay_absolute(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"xy")
    found = storage.find_files("/elsewhere", str(tmp_path / "*.txt"))
    assert [(file.path, file.num_bytes) for file in found] == [(str(tmp_path / "a.txt"), 2)]
