"""A user's own rows, from the CSV to the served model, as the README says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pyfsb import records
from pyfsb.records import CheckpointRecord, DatasetRecord, EvalReport, ServingRecord
from pyfsb.training.meters import read_metrics
from tests.conftest import ROOT, SAMPLES
from tests.helpers.specs import fsb

FINETUNE = str(ROOT / "docs/examples/finetune.yaml")
MIXTURE = str(ROOT / "docs/examples/mixture.yaml")
QUICK = [
    "training.max_steps=80", "training.num_epochs=4", "evaluation.finetune.max_steps=200",
    "evaluation.finetune.num_epochs=9", "serving.port=0", "parallelism.num_processes=1",
    "parallelism.threads_per_process=1",  # a model so small gains nothing by more
]  # fmt: skip

HARDLY = [
    "evaluation.finetune.max_steps=10", "evaluation.finetune.min_steps=10",
    "evaluation.gate.is_enabled=false",
]  # fmt: skip
"""For tests that say nothing about how good the transformer is."""
Run = tuple[Path, EvalReport, ServingRecord, str]


def _run(output: Path, *sets: str, spec: str = FINETUNE) -> Run:
    overrides = [part for value in (f"output={output}", *QUICK, *sets) for part in ("--set", value)]
    done = fsb("run", spec, *overrides)
    assert done.returncode == 0, done.stderr[-4000:]
    report, served = (records.read_record(str(output / name)) for name in ("evaluation", "serving"))
    assert isinstance(report, EvalReport)
    assert isinstance(served, ServingRecord)
    return output, report, served, done.stdout


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole way from a CSV: corpus, pretraining, evaluation, serving."""
    output = tmp_path_factory.mktemp("messages") / "run"
    return _run(output, f"data.train={SAMPLES}/own/messages.csv")


@pytest.fixture(scope="module")
def pretrained(messages: Run) -> list[str]:
    """Settings that start from the checkpoint of that run, where another pretraining tells nothing."""
    return [
        f"model.checkpoint={messages[0]}/training", "model.config={}", "data.corpus=[]",
        "data.corpus_includes_train=false",
    ]  # fmt: skip


def test_a_csv_is_all_it_takes(messages: Run) -> None:
    output, report, served, table = messages
    data = records.read_record(str(output / "data/labelled"))
    assert isinstance(data, DatasetRecord)
    assert data.splits == {"train": 300, "held_out": 300}
    assert data.labels == ("优惠", "商品", "物流", "退换")
    for score in report.scores:
        assert (score.num_rows, score.num_overlap) == (300, 0)
        assert score.value > score.majority_value
    assert served.answer["label"] in data.labels
    best = max(report.scores, key=lambda s: (s.value, s.runner == "finetune"))
    assert served.runner == best.runner
    assert best.p_value < 0.0005
    assert "held_out" in table
    checkpoint = records.read_record(str(output / f"evaluation/mine/{served.runner}-42"))
    assert isinstance(checkpoint, CheckpointRecord)
    assert "DatasetRecord" in [parent.kind for parent in checkpoint.parents]


def test_pairs_with_a_task_of_their_own(pretrained: list[str], tmp_path: Path) -> None:
    _, report, served, _ = _run(
        tmp_path / "run", f"data.train={SAMPLES}/own/questions.csv",
        f"data.task={ROOT}/docs/examples/task-pair.yaml", *HARDLY, *pretrained,
    )  # fmt: skip
    assert {score.task for score in report.scores} == {"questions"}
    assert {score.runner for score in report.scores} == {"finetune", "ngram"}
    assert set(served.question) == {"text", "text_pair"}
    ngram = next(score for score in report.scores if score.runner == "ngram")
    assert ngram.p_value < 0.001


def test_both_texts_of_pairs_join_the_corpus(tmp_path: Path) -> None:
    settings = [
        f"output={tmp_path}/run", f"data.train={SAMPLES}/own/questions.csv",
        f"data.task={ROOT}/docs/examples/task-pair.yaml", "data.corpus=[rawcorpus/sample.jsonl.gz]",
    ]  # fmt: skip
    overrides = [part for value in settings for part in ("--set", value)]
    assert fsb("data", "prepare", FINETUNE, *overrides).returncode == 0
    corpus = records.read_record(str(tmp_path / "run/data/corpus"))
    assert isinstance(corpus, DatasetRecord)
    lines = (tmp_path / "run/data/labelled/train.jsonl").read_text().split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    texts = {row[key] for row in rows for key in ("text", "text_pair")}
    assert len(texts) > len(rows)
    with gzip.open(SAMPLES / "rawcorpus/sample.jsonl.gz") as sample:
        assert corpus.num_read == sum(1 for _ in sample) + len(texts)


def test_a_mixture_is_one_model_scored_on_every_set(pretrained: list[str], tmp_path: Path) -> None:
    _, report, served, _ = _run(
        tmp_path / "run", *HARDLY, *pretrained, "evaluation.finetune.patience=1",
        "evaluation.finetune.validate_every_steps=4", "evaluation.finetune.lora={rank: 4}",
        "evaluation.gate.is_enabled=true", "evaluation.tasks=[eprstmt]", spec=MIXTURE,
    )  # fmt: skip
    data = records.read_record(str(tmp_path / "run/data/labelled"))
    assert isinstance(data, DatasetRecord)
    assert data.dropped == {"hotels: label not in its map": 90}
    scores = {(score.task, score.runner): score for score in report.scores}
    sizes = {task: scores[task, "ngram"].num_rows for task, _ in scores}
    assert sizes == {
        "eprstmt": 400, "sentiment": 760, "sentiment/products": 400, "sentiment/hotels": 360,
    }  # fmt: skip
    whole = scores["sentiment", "ngram"]
    assert whole.num_overlap == 0
    assert whole.num_correct == sum(
        scores[f"sentiment/{name}", "ngram"].num_correct for name in ("products", "hotels")
    )
    assert (served.task, served.runner, report.gate.has_passed) == ("sentiment", "ngram", True)
    assert served.answer["label"] in ("Negative", "Positive")
    folder = tmp_path / "run/evaluation/sentiment"
    trained = records.read_record(str(folder / "finetune-42"))
    assert isinstance(trained, CheckpointRecord)
    assert trained.step in (4, 8, 10)
    measured = [
        m["step"]
        for m in read_metrics(folder / "finetune-42/metrics.jsonl")
        if m["validation_loss"] is not None
    ]
    assert measured[0] == 4
    assert trained.step in measured
    assert not (folder / "finetune-42/best").exists()
    sets = [json.loads(line)["set"] for line in (folder / "predictions-ngram.jsonl").open()]
    assert (sets.count("products"), sets.count("hotels")) == (400, 360)


def test_entities_are_found_in_texts(pretrained: list[str], tmp_path: Path) -> None:
    _, report, served, _ = _run(
        tmp_path / "run", f"data.train={SAMPLES}/own/reviews.jsonl",
        f"data.task={ROOT}/docs/examples/task-tag.yaml", "serving.runner=finetune",
        "serving.question=没想到新款耳机质量很好", "evaluation.gate.is_enabled=false", *pretrained,
    )  # fmt: skip
    scores = {score.runner: score for score in report.scores}
    for score in scores.values():
        assert score.metric == "exact-match rows"
        assert (score.num_rows, score.num_overlap) == (300, 0)
        assert score.majority_label == "no entities"
        assert score.majority_value == pytest.approx(1 / 15)
    assert scores["ngram"].details["entity_f1"] > 0.5
    assert scores["ngram"].p_value < 0.001
    # Nouns and phrases of the held-out forms stand in no training row: a small model from random
    # weights learns its rows by heart and finds few of the others.
    assert scores["finetune"].details["entity_f1"] > 0.02
    steps = read_metrics(tmp_path / "run/evaluation/reviews/finetune-42/metrics.jsonl")
    assert steps[-1]["loss"] < steps[0]["loss"] / 10
    for entity in served.answer["entities"]:
        assert entity["text"] == served.question["text"][entity["start"] : entity["end"]]
        assert entity["type"] in ("product", "opinion")


@pytest.mark.parametrize(
    ("rows", "task", "problem"),
    [
        ("text,label\n" + "同一句话,正\n同一句话,负\n" * 40, "{}", "0 to score, both need some"),
        ("text,label\n好,正\n坏,负\n", "{}", "of 2 rows 2 are left to train on and 0 to score"),
        (
            "text,label\n" + "".join(f"文{n},\n" for n in range(40)),
            "{family: tag, labels: [物]}",
            "none of 16 training rows has an entity in field 'label'",
        ),
        ("text,label\n小明,甲\n", "{family: tag}", "line 2: '甲' is not a JSON list of entities"),
    ],
)
def test_rows_of_no_use_are_refused_before_anything_is_trained(
    rows: str, task: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text(rows, encoding="utf-8")
    done = fsb(
        "run", FINETUNE, "--set", f"output={tmp_path}/run", "--set", f"data.train={tmp_path}/mine.csv",
        "--set", f"data.task={task}", "--set", "serving.port=0",
    )  # fmt: skip
    assert done.returncode == 3
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/training").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("text,label\n好,正\n坏,负\n一般,中性\n", "line 4: label = '中性' is not one of 正, 负"),
        ("text,label\n,正\n", "line 2: text = '' is not a text"),
        ("content,label\n好,正\n", "no field 'text'; the row has 'content', 'label'"),
        ("", "holds no rows"),
    ],
)
def test_wrong_rows_are_named_before_anything_is_trained(
    text: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    done = fsb(
        "run", FINETUNE, "--set", f"output={tmp_path}/run", "--set", f"data.train={tmp_path}/mine.csv",
        "--set", "data.task={labels: [正, 负]}", "--set", "serving.port=0",
    )  # fmt: skip
    assert done.returncode == 3
    assert problem in done.stderr
    assert not (tmp_path / "run/training").exists()


def test_a_missing_file_is_named_at_once(tmp_path: Path) -> None:
    done = fsb(
        "run", FINETUNE, "--set", f"output={tmp_path}/run", "--set", "data.train=nothing.csv"
    )
    assert done.returncode == 3
    assert "nothing.csv (data.train or data.test)" in done.stderr


def test_few_rows_do_not_pass_the_gate_and_the_reason_is_told(
    pretrained: list[str], tmp_path: Path
) -> None:
    rows = [f"这条消息说的是{'好' if n % 2 else '坏'}事{n},{n % 2}" for n in range(60)]
    (tmp_path / "mine.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    settings = [
        *QUICK, *HARDLY, *pretrained, "evaluation.gate.is_enabled=true", f"output={tmp_path}/run",
        f"data.train={tmp_path}/mine.csv",
    ]  # fmt: skip
    done = fsb("run", FINETUNE, *(part for value in settings for part in ("--set", value)))
    assert done.returncode == 3
    assert "fewer than 300 held-out rows without overlap" in done.stderr
    assert "evaluation.gate.is_enabled=false" in done.stderr


def test_weights_at_hand_need_no_corpus(tmp_path: Path) -> None:
    from pyfsb.config import Family
    from tests.helpers.models import write_model

    folder = write_model(tmp_path / "weights", "Erlangshen-MegatronBert-1.3B", Family.FILL_MASK)
    _, report, served, _ = _run(
        tmp_path / "run", f"data.train={SAMPLES}/own/messages.csv", f"model.checkpoint={folder}",
        "data.corpus=[]", "data.corpus_includes_train=false", "model.config={}", *HARDLY,
        "evaluation.gate.is_enabled=true",  # the n-gram model passes it
    )  # fmt: skip
    assert served.runner == "ngram"
    assert [parent.kind for parent in report.parents] == ["ModelFolder", "DatasetRecord"]
    assert not (tmp_path / "run/training").exists()
    stages = json.loads(
        fsb("explain", FINETUNE, "--set", "data.corpus=[]", "--set", f"model.checkpoint={folder}",
            "--output", "json").stdout
    )["stages"]  # fmt: skip
    assert stages == ["data", "evaluation", "leaderboard", "serving"]
