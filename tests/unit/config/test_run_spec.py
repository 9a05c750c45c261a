from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pyfsb.cli.schema import json_schema
from pyfsb.config import Family, RunSpec, Stage, load_spec, pin_checkpoint, resolve_spec, stage_hash
from pyfsb.errors import ConfigError, DataError
from tests.conftest import ROOT
from tests.helpers.golden import assert_golden
from tests.helpers.versions import put_version

BASE = """
name: x
output: runs/x
model: {name: Erlangshen-MegatronBert-1.3B}
data: {corpus: ["*.jsonl"]}
"""


def spec(*overrides: str) -> RunSpec:
    return resolve_spec(BASE, overrides)


def test_overrides_replace_single_values() -> None:
    changed = spec("training.max_steps=7", "optimizer.betas=[0.5, 0.6]", "data.train=mine.csv")
    assert changed.training.max_steps == 7
    assert changed.optimizer.betas == (0.5, 0.6)
    assert str(changed.data.train).endswith("/mine.csv")
    assert Path(str(changed.data.train)).is_absolute()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("training.max_step=3", "unknown key 'training.max_step'; did you mean 'max_steps'?"),
        ("trainig.max_steps=3", "unknown key 'trainig'; did you mean 'training'"),
        ("data.task.famly=tag", "unknown key 'data.task.famly'; did you mean 'family'?"),
        ("evaluation.overrides={tnews: {num_epoch: 1}}", "did you mean 'num_epochs'?"),
        ("training.max_steps=many", "training.max_steps = 'many'"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate = -1"),
        ("optimizer.learning_rate=.nan", "optimizer.learning_rate = nan"),
        ("parallelism.zero_stage=4", "parallelism.zero_stage = 4: Input should be 0, 1, 2 or 3"),
        ("name=a b", "name = 'a b'"),
        ("name=../x", "name = '../x'"),
        ("noequals", "expected key.path=value"),
        ("name.first=1", "name is 'x', which has no keys"),
        ("data.task={family: pair}", "needs text_pair"),
        ("data.task={labels: [a, a]}", "labels must not repeat"),
        ("evaluation.finetune.seeds=[1, 1]", "seeds must be at least one number, none twice"),
        ("data.corpus=[]", "nothing to do: set data.corpus, data.train or evaluation.tasks"),
    ],
)
def test_wrong_settings_are_named(override: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec(override)
    assert text in str(caught.value)


def test_tasks_without_weights_or_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="no weights and no text to learn from"):
        spec("data.corpus=[]", "evaluation.tasks=[tnews]")


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ([], "data training"),
        (["evaluation.tasks=[tnews]"], "data training evaluation leaderboard serving"),
        (
            ["evaluation.tasks=[tnews]", "serving.is_enabled=false"],
            "data training evaluation leaderboard",
        ),
        (
            ["data.corpus=[]", "model.checkpoint=x", "data.train=a.csv"],
            "data evaluation leaderboard serving",
        ),
        (
            ["data.corpus=[]", "model.checkpoint=x", "evaluation.tasks=[tnews]"],
            "evaluation leaderboard serving",
        ),
    ],
)
def test_the_stages_follow_from_what_is_set(overrides: list[str], stages: str) -> None:
    assert " ".join(spec(*overrides).stages) == stages


@pytest.mark.parametrize(
    ("stage", "override", "changes"),
    [
        (Stage.DATA, "data.max_tokens=64", True),
        (Stage.DATA, "data.root=/elsewhere", False),
        (Stage.DATA, "data.num_processes=1", False),
        (Stage.DATA, "optimizer.learning_rate=0.5", False),
        (Stage.TRAINING, "optimizer.learning_rate=0.5", True),
        (Stage.TRAINING, "model.config={hidden_size: 4}", True),
        (Stage.TRAINING, "parallelism.num_processes=2", False),
        (Stage.TRAINING, "training.checkpoint_every_steps=9", False),
        (Stage.EVALUATION, "evaluation.gate.min_rows=5", True),
        (Stage.SERVING, "serving.port=9", False),
    ],
)
def test_a_stage_depends_on_its_own_settings(stage: Stage, override: str, changes: bool) -> None:
    assert (stage_hash(spec(override), stage) != stage_hash(spec(), stage)) is changes


def test_rows_are_cut_by_the_training() -> None:
    rows = ("data.corpus=[]", "data.rows=[rows.jsonl]")
    short = stage_hash(spec(*rows, "data.max_tokens=64"), Stage.TRAINING)
    assert short != stage_hash(spec(*rows), Stage.TRAINING)
    texts = stage_hash(spec("data.max_tokens=64"), Stage.TRAINING)
    assert texts == stage_hash(spec(), Stage.TRAINING)  # their shards are compared


def test_a_resolved_spec_resolves_to_itself() -> None:
    once = spec("data.train=a.csv", "evaluation.tasks=[tnews]")
    again = resolve_spec(yaml.safe_dump(once.to_json()))
    assert again == once


def test_a_task_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("family: tag\nlabel: spans\nlabels: [a]\n")
    task = spec("data.train=a.csv", f"data.task={tmp_path}/task.yaml").own_task
    assert (task.family, task.label, task.labels) == (Family.TAG, "spans", ("a",))


def test_a_wrong_task_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("famly: tag\n")
    with pytest.raises(ConfigError, match=r"task.yaml: unknown key 'famly'; did you mean 'family'"):
        spec(f"data.task={tmp_path}/task.yaml")


def test_a_version_is_kept_as_it_is_named_until_it_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSB_MODEL_STORE", str(tmp_path))
    put_version(str(tmp_path), 3, checkpoint=str(tmp_path / "weights"))
    named = spec("model.checkpoint=sentiment@3")
    assert named.model.checkpoint == "sentiment@3"
    assert resolve_spec(yaml.safe_dump(named.to_json())) == named
    assert pin_checkpoint(named).model.checkpoint == str(tmp_path / "weights")
    folder = spec("model.checkpoint=./sentiment@3")
    assert str(folder.model.checkpoint).endswith("/sentiment@3")
    assert pin_checkpoint(folder) == folder
    with pytest.raises(ConfigError, match="unknown version of sentiment"):
        pin_checkpoint(spec("model.checkpoint=sentiment@4"))


def test_a_missing_spec_is_named() -> None:
    with pytest.raises(DataError, match="cannot read nothing.yaml"):
        load_spec("nothing.yaml")


def _examples() -> list[Path]:
    return sorted(ROOT.glob("docs/examples/*.yaml"))


@pytest.mark.parametrize("path", _examples(), ids=lambda path: path.name)
def test_every_example_loads_is_short_and_fits_the_json_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.split("\n")) <= 60
    is_task = path.name.startswith("task")
    value: Any = yaml.safe_load(text)
    jsonschema.validate(_numbers(value), json_schema("task" if is_task else "run"))
    if is_task:
        assert len([line for line in text.split("\n") if line and line[0] != "#"]) <= 10
    else:
        load_spec(str(path))


def _numbers(value: Any) -> Any:
    """Read `1e-3` as editors do, which follow YAML 1.2."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and value.replace("e-", "").isdigit():
        return float(value)
    return value


def test_the_json_schema_is_the_committed_one(request: pytest.FixtureRequest) -> None:
    for kind in ("run", "task"):
        committed = ROOT / f"docs/schemas/{kind}.schema.json"
        assert json.loads(committed.read_text(encoding="utf-8")) == json_schema(kind)


def test_the_resolved_demo_is_golden(request: pytest.FixtureRequest) -> None:
    value = load_spec(str(ROOT / "docs/examples/demo.yaml")).to_json()
    value["output"] = value["data"]["root"] = "…"
    assert_golden(request, "demo_spec.json", value)
