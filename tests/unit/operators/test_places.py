from __future__ import annotations

from typing import Any

import pytest

from operators.places import Placing, to_claim
from pyfsb.config import RunSpec
from pyfsb.errors import ConfigError
from pyfsb.schema import parse
from tests.unit.operators.test_gang import make_run


def place(**changes: Any) -> tuple[RunSpec, list[str]]:
    placing = Placing()
    run = placing.place_run(parse(RunSpec, make_run(**changes), source="run"))
    return run, [claim.name for claim in placing.claims]


def test_what_is_on_s3_stays_there_and_what_is_on_claims_is_mounted() -> None:
    data = {
        "root": "pvc://raw/texts", "corpus": ["a/*.txt", "s3://b/*.jsonl", "pvc://more/*.txt"],
        "train": "pvc://mine/rows.csv", "task": "pvc://mine/task.yaml",
        "vocabulary": {"file": "pvc://raw/vocab.txt"},
    }  # fmt: skip
    model = {"name": "Wenzhong-GPT2-110M", "checkpoint": "/mnt/claims/weights/v1"}
    run, claims = place(data=data, model=model, output="s3://bucket/out")
    assert run.output == "s3://bucket/out"
    assert run.data.root == "/mnt/claims/raw/texts"
    assert run.data.corpus == ("a/*.txt", "s3://b/*.jsonl", "/mnt/claims/more/*.txt")
    assert (run.data.train, run.data.task) == (
        "/mnt/claims/mine/rows.csv", "/mnt/claims/mine/task.yaml",
    )  # fmt: skip
    assert run.data.vocabulary.file == "/mnt/claims/raw/vocab.txt"
    assert run.model.checkpoint == "/mnt/claims/weights/v1"
    assert sorted(claims) == ["mine", "more", "raw", "weights"]


def test_a_root_that_nothing_is_below_needs_no_place() -> None:
    run, _ = place(data={"corpus": ["s3://b/*.txt"]})
    assert run.data.root == "."
    for data in ({"corpus": ["*.txt"]}, {"train": "s3://b/t.csv", "corpus": ["x.txt"]}):
        with pytest.raises(ConfigError, match="run.data.root = '.': pods share no disk"):
            place(data=data)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"output": "/tmp/x"}, "run.output"),
        ({"data": {"train": "rows.csv"}}, "run.data.train"),
        ({"data": {"train": "s3://b/r", "task": "task.yaml"}}, "run.data.task"),
        (
            {"data": {"corpus": ["s3://b/*"], "vocabulary": {"file": "/v.txt"}}},
            "run.data.vocabulary.file",
        ),
        ({"model": {"name": "m", "checkpoint": "runs/x"}}, "run.model.checkpoint"),
    ],
)
def test_a_path_on_somebodys_disk_is_named(changes: dict[str, Any], key: str) -> None:
    changes.setdefault("data", {"corpus": ["s3://b/*.txt"]})
    changes.setdefault("model", {"name": "m", "checkpoint": "s3://b/m"})
    with pytest.raises(ConfigError, match=f"{key} = .*expected s3://bucket/folder or pvc://"):
        place(**changes)


def test_a_mounted_path_is_told_as_its_claim() -> None:
    assert to_claim("/mnt/claims/disk/a/b") == "pvc://disk/a/b"
    assert to_claim("s3://b/x") == "s3://b/x"
