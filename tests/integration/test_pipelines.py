"""The pipelines of the UI through KFP's local runner: a form, raw text and a CSV to a service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kfp import local

from pipelines.finetune import finetune
from pipelines.local_engine import without_retries
from pipelines.pretrain import pretrain
from pyfsb import records, versions
from pyfsb.records import CheckpointRecord, EvalReport, ServingRecord
from tests.conftest import ROOT, SAMPLES
from tests.helpers.specs import TINY_CONFIGS

MODEL = "Erlangshen-MegatronBert-1.3B"
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:kfp.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:kfp.*"),
]


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set up KFP's local runner; returns the folder of the artifacts."""
    monkeypatch.chdir(ROOT)  # the tasks import pipelines from there
    monkeypatch.setenv("FSB_MODEL_STORE", str(tmp_path / "models"))
    root = tmp_path / "artifacts"
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    with without_retries(pretrain), without_retries(finetune):
        yield root


def test_a_form_pretrains_and_fine_tunes_on_ones_own_rows(tmp_path: Path, artifacts: Path) -> None:
    tiny = {
        "data": {"vocabulary": {"size": 2000}, "num_processes": 1},
        "model": {"config": TINY_CONFIGS[MODEL]},
        "parallelism": {"num_processes": 1},
    }
    weights = pretrain(
        corpus=f"{SAMPLES}/rawcorpus/*.jsonl.gz", name="base", model=MODEL, max_steps=3,
        batch_tokens=512, max_tokens=64, learning_rate=1e-3, output=str(tmp_path / "{run}-base"),
        settings=yaml.safe_dump(tiny), engine="local",
    ).output  # fmt: skip
    assert isinstance(records.read_record(weights), CheckpointRecord)
    card = json.loads(_only(artifacts, "train/model").read_text())
    assert card["uri"] == f"{weights}/"
    assert card["step"] == 3
    assert "<svg" in _only(artifacts, "train/loss_curve").read_text()
    assert not list(artifacts.rglob("*.safetensors"))

    quick = {
        "data": {"num_processes": 1},
        "evaluation": {"gate": {"is_enabled": False}, "finetune": {"max_steps": 5}},
        "serving": {"port": 0},
        "parallelism": {"num_processes": 1},
    }
    place = finetune(
        train_file=f"{SAMPLES}/own/messages.csv", checkpoint=weights, name="messages",
        labels="优惠, 商品, 物流, 退换", output=str(tmp_path / "own"), max_tokens=64, seeds="7",
        settings=yaml.safe_dump(quick), register_as="messages", engine="local",
    ).output  # fmt: skip
    report = records.read_record(place)
    assert isinstance(report, EvalReport)
    assert {(score.task, score.runner) for score in report.scores} == {
        ("messages", "finetune"), ("messages", "ngram"),
    }  # fmt: skip
    assert "| messages | finetune |" in _only(artifacts, "evaluate/scores").read_text()
    assert "messages" in _only(artifacts, "evaluate/leaderboard").read_text()
    served = records.read_record(str(tmp_path / "own/serving"))
    assert isinstance(served, ServingRecord)
    assert served.answer["label"] in ("优惠", "商品", "物流", "退换")
    assert "Answer" in _only(artifacts, "deploy/service").read_text()
    assert versions.resolve("messages@1").task == "messages"


def _only(artifacts: Path, ending: str) -> Path:
    found = list(artifacts.glob(f"*/{ending}"))
    assert len(found) == 1, sorted(map(str, artifacts.rglob("*")))
    return found[0]
