from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compile import PIPELINES
from pipelines.components.compose_benchmark import compose_benchmark
from pipelines.components.compose_finetune import compose_finetune
from pipelines.components.compose_pretrain import compose_pretrain
from pipelines.forms import corpus_section, split_names, split_numbers
from pyfsb import records, versions
from pyfsb.config import RunSpec, Stage, resolve_spec
from pyfsb.errors import ConfigError, UnknownNameError
from tests.unit.pipelines.samples import checkpoint

COMPONENTS = {
    "pretrain": compose_pretrain, "finetune": compose_finetune, "benchmark": compose_benchmark,
}  # fmt: skip
REQUIRED = {
    "pretrain": {"corpus": "s3://b/corpus/**/*.jsonl.gz"},
    "finetune": {"train_file": "s3://b/mine.csv", "checkpoint": "s3://b/base"},
    "benchmark": {"data_root": "s3://b/data", "checkpoint": "s3://b/base"},
}
RUN = "0a1b2c3d-4e5f"


def fill(pipeline: str, **fields: Any) -> RunSpec:
    """Fill in a form as the UI does and return the spec that comes out."""
    component = COMPONENTS[pipeline].python_func
    wanted = inspect.signature(component).parameters
    form = {
        name: parameter.default
        for name, parameter in inspect.signature(
            PIPELINES[pipeline].pipeline_func
        ).parameters.items()
        if name in wanted
    }
    values = {**form, **REQUIRED[pipeline], "run_id": RUN, **fields}
    assert set(values) == set(wanted)
    return resolve_spec(component(**values))


def test_a_pretraining_by_default() -> None:
    spec = fill("pretrain")
    assert spec.stages == (Stage.DATA, Stage.TRAINING)
    assert (spec.data.root, spec.data.corpus) == ("s3://b/corpus", ("**/*.jsonl.gz",))
    assert spec.output == "s3://fengshenbang/runs/0a1b2c3d"
    assert (spec.batch.tokens, spec.training.max_steps, spec.model.checkpoint) == (
        524288, 10000, None,
    )  # fmt: skip


def test_a_fine_tuning_by_default() -> None:
    spec = fill("finetune")
    assert spec.stages == (Stage.DATA, Stage.EVALUATION, Stage.LEADERBOARD, Stage.SERVING)
    assert (spec.data.train, spec.data.test) == ("s3://b/mine.csv", None)
    assert spec.model.checkpoint == "s3://b/base"
    assert (spec.own_task.name, spec.own_task.labels) == ("finetune", ())
    assert (spec.evaluation.finetune.seeds, spec.serving.runner) == ((42,), "best")


def test_a_pair_task_in_form_fields() -> None:
    spec = fill(
        "finetune", family="pair", text_column="a", text_pair_column="b", label_column="same",
        labels="是, 否", seeds="1, 2", serve=False, name="questions",
    )  # fmt: skip
    task = spec.own_task
    assert (task.family, task.text, task.text_pair, task.label) == ("pair", "a", "b", "same")
    assert task.labels == ("是", "否")
    assert spec.evaluation.finetune.seeds == (1, 2)
    assert Stage.SERVING not in spec.stages


def test_a_benchmark_by_default() -> None:
    spec = fill("benchmark", suite="tnews, eprstmt")
    assert spec.stages == (Stage.EVALUATION, Stage.LEADERBOARD)
    assert spec.evaluation.tasks == ("tnews", "eprstmt")
    assert (spec.data.root, spec.model.checkpoint) == ("s3://b/data", "s3://b/base")


def test_an_alias_is_what_it_stood_for_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSB_MODEL_STORE", str(tmp_path / "store"))
    weights = tmp_path / "weights"
    records.write_record(checkpoint(), str(weights))
    versions.register("base", str(weights))
    spec = fill("benchmark", checkpoint="base@1", engine="local")
    assert spec.model.checkpoint == str(weights)
    with pytest.raises(UnknownNameError, match="'bse'; did you mean 'base'"):
        fill("benchmark", checkpoint="bse@1", engine="local")


def test_further_settings_win_over_the_form() -> None:
    settings = "optimizer: {weight_decay: 0.1}\ntraining: {max_steps: 7}"
    spec = fill("pretrain", settings=settings, learning_rate=3e-4)
    assert (spec.optimizer.weight_decay, spec.optimizer.learning_rate) == (0.1, 3e-4)
    assert spec.training.max_steps == 7


def test_a_folder_without_the_mark_is_kept() -> None:
    assert fill("pretrain", output="s3://b/mine").output == "s3://b/mine"


@pytest.mark.parametrize(
    ("pipeline", "fields", "text"),
    [
        ("pretrain", {"learning_rate": -1.0}, "optimizer.learning_rate = -1.0"),
        ("pretrain", {"name": "a b"}, "name = 'a b'"),
        ("pretrain", {"corpus": "s3://b/corpus"}, r"such as s3://b/corpus/\*\*/\*.jsonl.gz"),
        ("pretrain", {"settings": "optimiser: {}"}, "unknown key 'optimiser'; did you mean 'optim"),
        ("pretrain", {"settings": "a: ["}, "settings: not valid YAML"),
        ("pretrain", {"settings": "evaluation: {tasks: [tnews]}"}, "settings ask for evaluation"),
        ("pretrain", {"output": "runs/x"}, "expected s3://bucket/folder"),
        ("pretrain", {"corpus": "/data/*.txt"}, "pods cannot read this machine's disk"),
        ("finetune", {"family": "pairs"}, "data.task.family = 'pairs'"),
        ("finetune", {"family": "pair"}, "needs text_pair"),
        ("finetune", {"seeds": "4x"}, "seeds = '4x': expected whole numbers"),
        ("finetune", {"checkpoint": ""}, "no weights"),
        ("finetune", {"checkpoint": "a@1"}, "checkpoint = 'a@1': no model store is set up"),
        ("finetune", {"register_as": "mine"}, "register_as = 'mine': no model store is set up"),
    ],
)
def test_a_wrong_field_is_named(
    pipeline: str, fields: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FSB_MODEL_STORE", raising=False)
    with pytest.raises(ConfigError, match=text):
        fill(pipeline, **fields)


def test_an_unknown_model_is_told_at_once() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'Erlangshen-MegatronBert-1.3B'"):
        fill("benchmark", model="Erlangshen-MegatronBert-1.3")


def test_an_unknown_engine_is_told_at_once() -> None:
    with pytest.raises(UnknownNameError, match="unknown engine 'gpu'"):
        fill("pretrain", engine="gpu")


def test_a_registered_result_needs_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_MODEL_STORE", "s3://b/models")
    assert fill("finetune", register_as="mine")


@pytest.mark.parametrize(
    ("corpus", "root", "pattern"),
    [
        ("s3://b/a/*.txt", "s3://b/a", "*.txt"),
        ("s3://b/a/c.jsonl.gz", "s3://b/a", "c.jsonl.gz"),
        ("pvc://claim/a/**/*.txt", "pvc://claim/a", "**/*.txt"),
    ],
)
def test_where_a_corpus_lies(corpus: str, root: str, pattern: str) -> None:
    assert corpus_section(corpus) == {"root": root, "corpus": [pattern]}


def test_lists_in_a_field() -> None:
    assert split_names("优惠, 商品\n物流,,") == ["优惠", "商品", "物流"]
    assert split_numbers("1,2 , 3", field="seeds") == [1, 2, 3]


def test_the_spec_is_short_enough_to_read() -> None:
    """Defaults stay where they are: with the version of the package that runs it."""
    component = compose_benchmark.python_func
    fields = dict.fromkeys(inspect.signature(component).parameters, "")
    numbers = {"learning_rate": 1e-4, "num_epochs": 1, "batch_tokens": 64, "max_tokens": 64}
    chosen = {"name": "a", "model": "Erlangshen-MegatronBert-1.3B", "suite": "tnews", "seeds": "1"}
    places = {"checkpoint": "s3://b/c", "data_root": "s3://b/d", "output": "s3://b/o"}
    text = component(**{**fields, **numbers, **chosen, **places, "engine": "kubernetes"})
    assert set(yaml.safe_load(text)) == {"name", "output", "model", "evaluation", "data", "serving"}
