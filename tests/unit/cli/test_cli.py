from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyfsb import records
from pyfsb.cli import summary
from pyfsb.cli.__main__ import main
from tests.conftest import ROOT
from tests.unit.evaluation.test_evaluation import scored
from tests.unit.test_records import dataset

DEMO = str(ROOT / "docs/examples/demo.yaml")


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_explain_shows_everything_without_doing_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["explain", DEMO, "--set", f"output={tmp_path}/run"]) == 0
    text = out(capsys)
    for part in (
        "hidden_size: 128", "--nproc-per-node 2", '"stage": 1', "reads", "labelled_8000.json",
        f"writes {tmp_path}/run/training", "OMP_NUM_THREADS",
    ):  # fmt: skip
        assert part in text
    assert list(tmp_path.iterdir()) == []


def test_explain_as_json_and_dry_run_agree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["explain", DEMO, "--output", "json"]) == 0
    explained = json.loads(out(capsys))
    assert main(["run", DEMO, "--dry-run", "--output", "json"]) == 0
    assert json.loads(out(capsys)) == explained
    assert explained["stages"] == ["data", "training", "evaluation", "leaderboard", "serving"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--set", "model.name=Erlangshn-MegatronBert-1.3B"], 2, "did you mean 'Erlangshen-Meg"),
        (["--set", "trainig.max_steps=1"], 2, "unknown key 'trainig'; did you mean 'training'"),
        (["--set", "optimizer.learning_rate=fast"], 2, "optimizer.learning_rate = 'fast'"),
        (["--set", "evaluation.tasks=[tnew]"], 2, "unknown task or suite 'tnew'; did you mean"),
        (
            ["--set", "serving.task=tnew"],
            2,
            "unknown task in serving.task (scored: tnews, eprstmt) 'tnew'; did you mean 'tnews'?",
        ),
        (
            ["--set", "evaluation.overrides.tnew.num_epochs=1"],
            2,
            "unknown task in evaluation.overrides (scored: tnews, eprstmt) 'tnew'; did you mean 'tnews'?",
        ),
        (
            ["--set", "serving.runner=ngram", "--set", "evaluation.runners=[finetune]"],
            2,
            "serving.runner = 'ngram' needs a model of that runner, but evaluation.runners = [finetune]",
        ),
        (
            ["--set", "serving.runner=best", "--set", "evaluation.runners=[]"],
            2,
            "evaluation.runners = []; add it there",
        ),
        (["--set", "data.root=/nowhere"], 3, "missing files: /nowhere/clue/tnews_resplit"),
        (["--engine", "kubernets"], 2, "unknown engine 'kubernets'"),
    ],
)
def test_wrong_runs_end_with_one_line_and_their_code(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(ROOT)
    assert main(["run", DEMO, "--set", f"output={tmp_path}/run", *arguments]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_the_own_task_and_its_runners_may_be_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    sets = [
        f"output={tmp_path}/run", "data.root=/nowhere", "evaluation.tasks=[tnews]",
        "serving.task=mine", "evaluation.overrides.mine.num_epochs=1", "serving.runner=ngram",
    ]  # fmt: skip
    overrides = [part for value in sets for part in ("--set", value)]
    assert main(["run", "docs/examples/finetune.yaml", *overrides]) == 3
    assert "missing files: /nowhere/clue/tnews_resplit" in capsys.readouterr().err


def test_the_table_shows_the_served_seed_with_its_interval_and_the_mean_beside_it() -> None:
    one = scored(["a", "b"], [["a", "b"]])
    assert summary.score_cells(one)[2:4] == ("1.000", "0.342–1.000")
    two = scored(["a", "b"], [["a", "b"], ["b", "b"]])
    assert summary.score_cells(two)[2:4] == ("1.000 (mean of 2 seeds 0.750)", "0.342–1.000")


def test_a_missing_spec_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nothing.yaml"]) == 3
    assert "cannot read nothing.yaml: no such file" in capsys.readouterr().err


def test_models_and_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--output", "json"]) == 0
    assert "Wenzhong-GPT2-110M" in {entry["name"] for entry in json.loads(out(capsys))}
    assert main(["models", "list"]) == 0
    assert "二郎神" in out(capsys)
    assert main(["models", "show", "闻仲-3.5B"]) == 0
    assert "hub_id: IDEA-CCNL/Wenzhong-GPT2-3.5B" in out(capsys)
    assert main(["models", "show", "Wenzhon"]) == 2
    assert main(["tasks", "list", "--output", "json"]) == 0
    assert len(json.loads(out(capsys))["tasks"]) == 5
    assert main(["tasks", "list"]) == 0
    assert "ocnli_50k_predict.json" in out(capsys)


def test_schemas_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "task"]) == 0
    assert "family" in json.loads(out(capsys))["properties"]


def test_records_are_shown_verified_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_bytes(b"1")
    files = records.describe_files(tmp_path / "data", [tmp_path / "data/x"])
    base = dataset(files=files)
    records.write_record(base, str(tmp_path / "data"))
    link = records.link(base, str(tmp_path / "data"), base=str(tmp_path / "b"), root=str(tmp_path))
    gone = link.model_copy(update={"uri": "../gone"})
    records.write_record(dataset(parents=(link, gone)), str(tmp_path / "b"))
    place = str(tmp_path / "b")
    assert main(["records", "show", place, "--output", "json"]) == 0
    assert json.loads(out(capsys))["kind"] == "DatasetRecord"
    assert main(["records", "show", place]) == 0
    assert "num_read: 2" in out(capsys)
    assert main(["records", "tree", place]) == 0
    text = out(capsys)
    assert "├─ DatasetRecord  1 of 2 documents" in text
    assert "└─ DatasetRecord  missing" in text
    assert main(["records", "tree", place, "--output", "json"]) == 0
    assert len(json.loads(out(capsys))["made_from"]) == 2
    assert main(["records", "verify", str(tmp_path / "data")]) == 0
    (tmp_path / "data/x").write_bytes(b"2")
    assert main(["records", "verify", str(tmp_path / "data")]) == 3
    records.write_record(dataset(seeds=(9,)), str(tmp_path / "data"))
    assert main(["records", "tree", place]) == 0
    assert "(changed since)" in out(capsys)


def test_a_stage_that_the_spec_lacks_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "name: x\noutput: o\nmodel: {name: Wenzhong-GPT2-110M}\ndata: {corpus: [a.txt]}\n"
    )
    assert main(["evaluate", "run", str(spec)]) == 2
    assert "has no stage evaluation; it has data, training" in capsys.readouterr().err
