"""The benchmark files themselves; needs FSB_DATA."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pyfsb.data import readers
from pyfsb.data.documents import Document
from pyfsb.data.normalizing import normalise_text
from pyfsb.data.segmenting import RUNS, load_cutter
from pyfsb.data.tokenizing import DocumentTokenizer
from pyfsb.data.vocabulary import build_tokenizer, read_vocabulary
from pyfsb.evaluation.ngram import fit_ngram
from pyfsb.evaluation.predict import answer_rows
from pyfsb.evaluation.rows import read_task_rows
from pyfsb.evaluation.scoring import Scored, score_answers
from pyfsb.evaluation.submission import write_submission
from pyfsb.evaluation.tasks import all_tasks, find_task
from pyfsb.inference.loading import load_predictor
from pyfsb.storage.workspace import Workspace
from pyfsb.training.distributed import ProcessGroup

pytestmark = pytest.mark.data
ALONE = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))
EXPECTED = {
    "tnews": (8000, 2010, 161, 0, 1500),
    "eprstmt": (160, 160, 0, 0, 753),
    "ocnli": (9985, 2950, 0, 65, 3000),
    "afqmc": (10000, 2000, 0, 0, 0),
    "chnsenticorp": (9600, 1200, 333, 0, 0),
}
"""Training rows, held-out rows, overlapping ones, excluded ones, rows to hand in."""


def documents(root: Path, every: int) -> Iterator[str]:
    for name in readers.find_files(str(root), ["rawcorpus/*.jsonl.gz"]):
        items = readers.read_documents(
            root / name, source=name, text_field="text", txt_documents="lines"
        )
        for number, item in enumerate(items):
            assert isinstance(item, Document)
            if number % every == 0:
                yield normalise_text(item.text)


@pytest.mark.parametrize("name", EXPECTED)
def test_rows_are_read_as_counted(name: str, real_data: Path) -> None:
    rows = read_task_rows(find_task(name), str(real_data))
    found = (
        len(rows.train), len(rows.held_out), sum(rows.has_overlap), rows.num_excluded,
        len(rows.submission),
    )  # fmt: skip
    assert found == EXPECTED[name]


def test_every_label_of_a_task_occurs(real_data: Path) -> None:
    for task in all_tasks().values():
        rows = read_task_rows(task, str(real_data))
        assert {row.label for row in rows.train} == set(task.spec.labels)


def test_the_ngram_model_reaches_the_known_scores(real_data: Path, tmp_path: Path) -> None:
    """About 47 % on the 1,849 rows without overlap, 50 % on all 2,010."""
    task = find_task("tnews")
    rows = read_task_rows(task, str(real_data))
    workspace = Workspace(str(tmp_path))
    record = fit_ngram(task, rows.train, seed=42, run="r", workspace=workspace, parents=())
    answers = answer_rows(load_predictor(workspace.uri), rows.held_out, ALONE)
    about = Scored(
        task=task, runner="ngram", seeds=(42,), checkpoint=".", checkpoint_digest=record.digest,
        split_hash=rows.files[1].xxh3, num_train=len(rows.train), num_excluded=0, seconds=0.0,
    )  # fmt: skip
    score = score_answers(about, rows.held_out, rows.has_overlap, [answers])
    assert score.num_rows == 1849
    assert score.value == pytest.approx(0.466, abs=0.01)
    assert score.value_all_rows == pytest.approx(0.50, abs=0.01)
    assert score.majority_value == pytest.approx(0.07, abs=0.002)
    board = answer_rows(load_predictor(workspace.uri), rows.submission, ALONE)
    assert rows.submission_path
    path = write_submission(task, rows.submission_path, board, tmp_path / "out")
    official = real_data / "fewclue/submit_examples/tnewsf_predict.json"
    theirs = [json.loads(line) for line in official.read_text().split("\n") if line.strip()]
    ours = [json.loads(line) for line in path.read_text().split("\n")[: len(theirs)]]
    assert [row["id"] for row in ours] == [row["id"] for row in theirs]
    assert {key: type(value) for key, value in ours[0].items()} == {
        key: type(value) for key, value in theirs[0].items()
    }


@pytest.mark.timeout(300)
def test_words_are_those_of_jieba_but_for_ties(real_data: Path) -> None:
    fast, reference = load_cutter("rjieba"), load_cutter("jieba")
    num_runs = 0
    different = []
    for text in documents(real_data, every=9):
        runs = RUNS.findall(text)
        num_runs += len(runs)
        different += [run for run in runs if list(fast(run)) != list(reference(run))]
    assert num_runs > 200_000
    assert len(different) / num_runs < 2e-5, different


@pytest.mark.timeout(300)
def test_ids_are_those_of_tokenizers(real_data: Path) -> None:
    path = real_data / "tokenizers/bert-base/vocab.txt"
    pieces = read_vocabulary(path.read_text(encoding="utf-8"), source=str(path))
    ours = DocumentTokenizer(pieces, lowercase=True, cut=load_cutter("rjieba"))
    reference = build_tokenizer(pieces, lowercase=True)
    num_tokens = 0
    for text in documents(real_data, every=7):
        expected = reference.encode(text, add_special_tokens=False).ids
        assert ours.tokenize(text).ids.tolist() == expected, text[:80]
        num_tokens += len(expected)
    assert num_tokens > 1_000_000
