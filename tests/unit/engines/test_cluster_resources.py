from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyfsb import storage
from pyfsb.config import RunSpec, Stage, resolve_spec, stage_hash
from pyfsb.engines.cluster_resources import (
    ClusterOptions,
    build_gang,
    check_places,
    read_options,
    resource_name,
    upload_inputs,
)
from pyfsb.errors import ConfigError
from tests.helpers.api_server import Json
from tests.helpers.specs import tiny_spec


def make_spec(output: str, **changes: Any) -> RunSpec:
    return resolve_spec(yaml.safe_dump(tiny_spec(output, **changes)))


def s3_spec(output: str = "s3://b/run", **changes: Any) -> RunSpec:
    return make_spec(output, **{"data__root": "s3://b/data", **changes})


def test_names_follow_from_the_run_and_fit_pods() -> None:
    spec = s3_spec(name="Tiny.Run_1")
    name = resource_name(spec, Stage.TRAINING)
    assert re.fullmatch(r"tiny-run-1-training-[0-9a-f]{8}", name)
    assert name == resource_name(s3_spec(name="Tiny.Run_1"), Stage.TRAINING)
    assert name != resource_name(
        s3_spec(name="Tiny.Run_1", optimizer__learning_rate=0.5), Stage.TRAINING
    )
    assert name != resource_name(s3_spec("s3://b/other", name="Tiny.Run_1"), Stage.TRAINING)
    assert resource_name(spec, Stage.SERVING) == "tiny-run-1"
    long = [resource_name(s3_spec(name="9" * 60 + end), Stage.EVALUATION) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(name) <= 52 and name.startswith("run-") for name in long)


def test_a_manifest_says_what_was_asked_and_nothing_else() -> None:
    manifest = build_gang(
        s3_spec(), Stage.TRAINING,
        ClusterOptions(
            pool="a100", nodes=2, processes_per_node=8, resources={"sharedMemory": "8Gi"},
            stops_with={"workflow": "w", "uid": "1"},
        ),
    )  # fmt: skip
    assert manifest["kind"] == "TrainingRun"
    spec = manifest["spec"]
    assert spec.pop("run")["output"] == "s3://b/run"
    assert spec == {
        "pool": "a100", "nodes": 2, "processesPerNode": 8, "resources": {"sharedMemory": "8Gi"},
        "stopsWith": {"workflow": "w", "uid": "1"},
    }  # fmt: skip
    assert "null" not in json.dumps(manifest)
    with pytest.raises(ConfigError, match="stage training: TrainingRun: .*memory"):
        build_gang(s3_spec(), Stage.TRAINING, ClusterOptions(resources={"memry": "1Gi"}))


def test_options_come_from_the_environment() -> None:
    given = {
        "FSB_NAMESPACE": "team", "FSB_POOL": "data=cpu, a100", "FSB_NODES": "2",
        "FSB_PROCESSES_PER_NODE": "8", "FSB_BLOCKED_SECONDS": "60",
    }  # fmt: skip
    training = read_options(Stage.TRAINING, given)
    assert (training.pool, training.nodes, training.processes_per_node) == ("a100", 2, 8)
    assert (training.namespace, training.blocked_limit_seconds) == ("team", 60)
    data = read_options(Stage.DATA, given)
    assert (data.pool, data.nodes, data.processes_per_node) == ("cpu", 1, None)
    assert read_options(Stage.SERVING, {}).pool == "default"
    for wrong, text in (
        ({"FSB_NODES": "two"}, "FSB_NODES='two'"), ({"FSB_POOL": "trainig=a"}, "stages are data, t")
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            read_options(Stage.TRAINING, wrong)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"output": "/runs/x"}, r"output = '/runs/x': pods cannot write .*=s3://bucket/tiny"),
        ({"data__root": "/texts"}, r"data.root = '/texts': .*aws s3 cp --recursive /texts s3"),
        ({"data__corpus": ["/texts/*.gz"]}, r"data.corpus = '/texts': pods cannot read"),
        ({"model__checkpoint": "/base"}, r"model.checkpoint = '/base': .*rclone copy /base"),
    ],
)
def test_places_that_pods_cannot_reach_are_refused(changes: Json, text: str) -> None:
    output = changes.pop("output", "s3://b/run")
    with pytest.raises(ConfigError, match=text):
        check_places(s3_spec(output, **changes))


def test_an_output_on_a_claim_is_refused_with_what_would_be_right() -> None:
    spec = s3_spec().model_copy(update={"output": "pvc://claim/run"})
    with pytest.raises(ConfigError, match="use s3://, or apply the resources with kubectl"):
        check_places(spec)


def test_own_files_are_sent_once_and_named_by_their_content(s3: str, tmp_path: Path) -> None:
    rows = tmp_path / "mine.csv"
    rows.write_text("text,label\n")
    spec = s3_spec(s3, data__train=str(rows), data__test="s3://b/held.csv")
    sent = upload_inputs(spec)
    assert re.fullmatch(rf"{s3}/inputs/[0-9a-f]{{16}}/mine.csv", str(sent.data.train))
    assert storage.read_text(str(sent.data.train)) == "text,label\n"
    assert sent.data.test == "s3://b/held.csv"
    before = storage.version(str(sent.data.train))
    assert upload_inputs(spec).data.train == sent.data.train
    assert storage.version(str(sent.data.train)) == before
    assert stage_hash(sent, Stage.DATA) == stage_hash(spec, Stage.DATA)
    rows.write_text("text,label\n1,2\n")
    assert upload_inputs(spec).data.train != sent.data.train
