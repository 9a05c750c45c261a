from __future__ import annotations

from typing import Any

import pytest
import yaml

from pyfsb.config import Family, RunSpec, Stage, resolve_spec, stage_hash
from pyfsb.errors import ConfigError

SETS = [
    {"name": "a", "train": "a.json", "text_pair": "q", "label_map": {0: "no", 1: "yes"}},
    {"name": "b", "train": "/x/b.csv", "test": "s3://c/b.csv", "text_pair": "q", "weight": 2},
]


def spec(*overrides: str, **mixture: Any) -> RunSpec:
    whole = {"name": "same", "family": "pair", "labels": ["no", "yes"], "sets": SETS, **mixture}
    value = {
        "name": "x", "output": "runs/x", "data": {"root": "/r", "mixture": whole},
        "model": {"name": "Erlangshen-MegatronBert-1.3B", "checkpoint": "w"},
    }  # fmt: skip
    return resolve_spec(yaml.safe_dump(value), overrides)


def test_a_mixture_is_a_task_of_the_run() -> None:
    found = spec()
    assert found.stages == (Stage.DATA, Stage.EVALUATION, Stage.LEADERBOARD, Stage.SERVING)
    assert found.labelled_files == ("/r/a.json", "/x/b.csv", "s3://c/b.csv")
    task = found.own_task
    assert (task.name, task.family, task.labels) == ("same", Family.PAIR, ("no", "yes"))


def test_labels_that_yaml_reads_as_numbers_are_texts() -> None:
    sets = [{**SETS[1], "label_map": {1: 7, "x": "7"}}]
    mixture = spec(labels=[7, "8"], sets=sets).data.mixture
    assert mixture is not None
    assert mixture.labels == ("7", "8")
    assert mixture.sets[0].label_map == {"1": "7", "x": "7"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sets": []}, "sets must be at least one"),
        ({"sets": [SETS[0], SETS[0]]}, "two sets are named 'a'; every set needs a name of its own"),
        ({"sets": [{**SETS[0], "weight": 0}]}, "data.mixture.sets.0.weight = 0: Input should be greater than 0"),
        ({"sets": [{**SETS[0], "label_map": {"1": "yse"}}]}, "set 'a': label_map turns '1' into 'yse', which is not one of labels (no, yes); did you mean 'yes'"),
        ({"sets": [{"name": "a", "train": "a"}]}, "set 'a': family pair, and only it, needs text_pair"),
        ({"sets": [{**SETS[0], "lable": "x"}]}, "unknown key 'data.mixture.sets.0.lable'; did you mean 'label'"),
        ({"labels": ["no", "no"]}, "labels must not repeat"),
        ({"labels": ["no"]}, "family pair needs 2 labels, here: no"),
        ({"temperature": 0}, "data.mixture.temperature = 0"),
    ],
)  # fmt: skip
def test_wrong_mixtures_are_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec(**changes)
    assert problem in str(caught.value)


@pytest.mark.parametrize("override", ["data.train=a.csv", "data.test=a.csv", "data.task={name: a}"])
def test_rows_come_from_a_mixture_or_from_one_file(override: str) -> None:
    with pytest.raises(ConfigError, match="mixture stands in place of train, test and task"):
        spec(override)


@pytest.mark.parametrize(
    ("stage", "changes", "is_other"),
    [
        (Stage.DATA, {"sets": [{**SETS[0], "train": "c.json"}, SETS[1]]}, False),
        (Stage.DATA, {"sets": [{**SETS[0], "weight": 3}, SETS[1]]}, False),
        (Stage.DATA, {"sets": SETS[:1]}, True),
        (Stage.DATA, {"labels": ["yes", "no"]}, True),
        (Stage.EVALUATION, {"sets": [{**SETS[0], "weight": 3}, SETS[1]]}, True),
        (Stage.EVALUATION, {"temperature": 2}, True),
        (Stage.TRAINING, {"temperature": 2}, False),
    ],
)
def test_hashes_see_what_a_stage_depends_on(
    stage: Stage, changes: dict[str, Any], is_other: bool
) -> None:
    assert (stage_hash(spec(), stage) != stage_hash(spec(**changes), stage)) is is_other
