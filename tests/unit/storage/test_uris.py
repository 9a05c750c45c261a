from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyfsb import storage
from pyfsb.errors import ConfigError
from pyfsb.storage.uris import normalise, split_s3


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/a/", "s3://b/a"), ("s3://b", "s3://b"), ("s3://b/x/../y", "s3://b/y"),
        ("file:///tmp/x/", "/tmp/x"), ("runs/./a", "runs/a"), ("/a//b", "/a/b"),
    ],
)  # fmt: skip
def test_one_spelling(uri: str, expected: str) -> None:
    assert normalise(uri) == expected


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ConfigError, match="scheme gs://; expected s3://"):
        normalise("gs://bucket/x")


def test_a_bucket_is_needed() -> None:
    with pytest.raises(ConfigError, match="names no bucket"):
        split_s3("s3:///x")


def test_joining() -> None:
    assert storage.join("s3://b/a", "c", "../d") == "s3://b/a/d"
    assert storage.join("/a/b", "c") == "/a/b/c"


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("x/y") == os.path.join(os.getcwd(), "x/y")
    assert storage.absolute("s3://b/x/") == "s3://b/x"


@pytest.mark.parametrize("root", ["/runs/a", "s3://b/runs/a"])
def test_links_inside_a_run_survive_a_move(root: str) -> None:
    link = storage.relative(f"{root}/data/corpus", f"{root}/training", root=root)
    assert link == "../data/corpus"
    assert storage.resolve(link, "s3://other/place/training") == "s3://other/place/data/corpus"


def test_links_that_leave_the_run_stay_absolute() -> None:
    assert storage.relative("/x/data", "/runs/a/training", root="/runs/a") == "/x/data"
    assert storage.relative("s3://c/d", "/runs/a/t", root="/runs/a") == "s3://c/d"
    assert storage.resolve("/x/data", "/runs/a/training") == "/x/data"


def test_a_folder_with_a_longer_name_is_not_inside() -> None:
    assert storage.relative("/runs/ab/d", "/runs/a/t", root="/runs/a") == "/runs/ab/d"
