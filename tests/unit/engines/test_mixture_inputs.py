from __future__ import annotations

from pathlib import Path

import yaml

from pyfsb import storage
from pyfsb.config import RunSpec, Stage, resolve_spec, stage_hash
from pyfsb.engines.cluster_resources import upload_inputs
from pyfsb.engines.completion import record_places


def _spec(folder: Path, root: str) -> RunSpec:
    sets = [
        {"name": "a", "train": "a.csv", "test": "s3://b/a.csv"},
        {"name": "b", "train": str(folder / "b.csv"), "label_map": {0: "x", 1: "y"}},
    ]
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("text,label\n甲,x\n", encoding="utf-8")
    value = {
        "name": "x", "output": str(folder / "out"),
        "model": {"name": "Erlangshen-MegatronBert-1.3B", "checkpoint": "w"},
        "data": {"root": root, "mixture": {"labels": ["x", "y"], "sets": sets}},
    }  # fmt: skip
    return resolve_spec(yaml.safe_dump(value))


def test_the_sets_of_a_mixture_are_sent_along(tmp_path: Path) -> None:
    spec = _spec(tmp_path, str(tmp_path))
    sent = upload_inputs(spec)
    first, held_out, second = sent.labelled_files
    assert held_out == "s3://b/a.csv"
    for place, name in ((first, "a.csv"), (second, "b.csv")):
        assert place.startswith(str(tmp_path / "out/inputs/"))
        assert place.endswith(f"/{name}")
        assert storage.read_text(place) == "text,label\n甲,x\n"
    assert stage_hash(sent, Stage.DATA) == stage_hash(spec, Stage.DATA)


def test_what_lies_below_a_remote_root_stays_where_it_is(tmp_path: Path) -> None:
    mixture = upload_inputs(_spec(tmp_path, "s3://b/data")).data.mixture
    assert mixture
    first, second = mixture.sets
    assert (first.train, first.test) == ("a.csv", "s3://b/a.csv")
    assert second.train.startswith(str(tmp_path / "out/inputs/"))


def test_the_data_stage_of_a_mixture_leaves_a_record(tmp_path: Path) -> None:
    assert record_places(_spec(tmp_path, str(tmp_path)), Stage.DATA) == [
        str(tmp_path / "out/data/labelled")
    ]
