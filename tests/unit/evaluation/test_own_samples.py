"""The own-data samples keep the rule that they show: held-out rows share nothing with training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from pyfsb.config import DataSpec, TaskSpec, resolve_spec
from pyfsb.data import labelled
from pyfsb.data.labelled import Example
from pyfsb.data.mixture import LabelledSet, read_mixture
from pyfsb.data.row_files import read_rows
from pyfsb.evaluation.contamination import find_overlap
from pyfsb.evaluation.ngram import fit_ngram
from pyfsb.evaluation.predict import answer_rows
from pyfsb.evaluation.protocol import Task
from pyfsb.evaluation.scoring import Scored, score_answers
from pyfsb.inference.loading import load_predictor
from pyfsb.storage.workspace import Workspace
from pyfsb.training.distributed import ProcessGroup
from tests.conftest import ROOT, SAMPLES

EXAMPLES = ROOT / "docs/examples"
WORDS = yaml.safe_load((EXAMPLES / "samples/templates.yaml").read_text(encoding="utf-8"))
BODIES = [body for items in WORDS["messages"]["labels"].values() for body in items]
OWN = {
    "messages.csv": (WORDS["messages"]["forms"], BODIES),
    "questions.csv": (WORDS["messages"]["forms"], BODIES),
    "reviews.jsonl": (WORDS["marked"]["forms"], WORDS["marked"]["nouns"]),
}
"""Forms and contents that the rows of each file were made from."""


def _task(name: str) -> TaskSpec:
    if name == "messages.csv":
        spec = yaml.safe_load((EXAMPLES / "finetune.yaml").read_text(encoding="utf-8"))
        return TaskSpec.model_validate(spec["data"]["task"])
    file = {"questions.csv": "task-pair.yaml", "reviews.jsonl": "task-tag.yaml"}[name]
    return TaskSpec.model_validate(yaml.safe_load((EXAMPLES / file).read_text(encoding="utf-8")))


def _split(name: str) -> tuple[TaskSpec, list[Example], list[Example]]:
    path, data = SAMPLES / "own" / name, DataSpec()
    task = labelled.with_labels(_task(name), read_rows(path), source=name)
    rows = labelled.parse_rows(read_rows(path), task, source=name)
    train, held = labelled.hold_out(
        rows, ratio=data.held_out_ratio, min_rows=data.held_out_rows, seed=42
    )
    return task, train, held


def _contents(rows: list[Example], contents: list[str]) -> set[str]:
    texts = [text for row in rows for text in (row.text, row.text_pair) if text]
    return {content for content in contents if any(content in text for text in texts)}


def _forms(rows: list[Example], forms: list[str]) -> set[str]:
    """Return the forms whose fixed parts stand in a row; forms of punctuation alone are not told."""
    found = set()
    texts = [text for row in rows for text in (row.text, row.text_pair) if text]
    for form in forms:
        parts = [part for part in form.replace("{", "}").split("}") if part not in "mnpoq，。！？"]
        if parts and any(all(part in text for part in parts) for text in texts):
            found.add(form)
    return found


@pytest.mark.parametrize("name", OWN)
def test_held_out_rows_have_forms_and_contents_of_their_own(name: str) -> None:
    _, train, held = _split(name)
    forms, contents = OWN[name]
    assert len(held) >= 300
    assert not any(find_overlap(train, held))
    assert len(_contents(train, contents)) >= len(contents) // 3
    assert not _contents(train, contents) & _contents(held, contents)
    assert len(_forms(train, forms)) >= len(forms) // 3
    assert not _forms(train, forms) & _forms(held, forms)


def _mixture() -> dict[str, LabelledSet]:
    spec = resolve_spec((EXAMPLES / "mixture.yaml").read_text(encoding="utf-8"))
    data = spec.data.model_copy(update={"root": str(SAMPLES)})
    assert data.mixture
    return {part.name: part for part in read_mixture(data, data.mixture, seed=42)}


def test_the_sets_of_the_mixture_share_nothing_either() -> None:
    sets = _mixture()
    sizes = {name: (len(part.train), len(part.held_out)) for name, part in sets.items()}
    assert sizes == {"products": (600, 400), "hotels": (360, 360)}
    words = WORDS["ratings"]
    opinions = [opinion for items in words["opinions"].values() for opinion in items]
    train, held = sets["hotels"].train, sets["hotels"].held_out
    assert not _forms(train, words["forms"]) & _forms(held, words["forms"])
    ends = [{row.text.rstrip("。！") for row in rows} for rows in (train, held)]
    found = [
        {opinion for opinion in opinions if any(text.endswith(opinion) for text in texts)}
        for texts in ends
    ]
    assert min(len(part) for part in found) > 20
    assert not found[0] & found[1]
    assert {row.label for row in train} == {row.label for row in held} == {"Positive", "Negative"}


@pytest.mark.parametrize("name", [*OWN, "ratings.csv"])
def test_they_can_be_learned_but_not_by_heart(name: str, tmp_path: Path) -> None:
    if name in OWN:
        spec, train, held = _split(name)
    else:
        hotels = _mixture()["hotels"]
        train, held = hotels.train, hotels.held_out
        spec = TaskSpec(name="hotels", labels=("Negative", "Positive"))
    task = Task(
        spec=spec, title="", version="1", train=name, test=name, source="", licence=""
    )  # fmt: skip
    workspace = Workspace(str(tmp_path))
    record = fit_ngram(task, train, seed=42, run="r", workspace=workspace, parents=())
    alone = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))
    answers = answer_rows(load_predictor(workspace.uri), held, alone)
    about = Scored(
        task=task, runner="ngram", seeds=(42,), checkpoint="", checkpoint_digest=record.digest,
        split_hash="", num_train=len(train), num_excluded=0, seconds=0.0,
    )  # fmt: skip
    score = score_answers(about, held, [False] * len(held), [answers], train=train)
    assert score.p_value < 1e-6
    assert score.majority_value + 0.1 < score.value < 0.99
