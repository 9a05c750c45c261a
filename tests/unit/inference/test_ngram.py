from __future__ import annotations

import time
from pathlib import Path

import pytest

from pyfsb import records
from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import Entity, Example
from pyfsb.evaluation.ngram import fit_ngram
from pyfsb.evaluation.protocol import Task
from pyfsb.inference.deadline import OutOfTimeError, deadline_at
from pyfsb.inference.loading import load_predictor
from pyfsb.inference.ngram import cut_input
from pyfsb.inference.protocol import Predictor, TextInput
from pyfsb.storage.workspace import Workspace
from tests.unit.evaluation.test_evaluation import make_task, row


def load(folder: Path, task: Task, rows: list[Example], *, max_characters: int) -> Predictor:
    """Fit a model and load it with another bound in its record."""
    workspace = Workspace(str(folder))
    record = fit_ngram(task, rows, seed=1, run="r", workspace=workspace, parents=())
    changed = record.model_copy(update={"max_tokens": max_characters})
    records.write_record(changed, workspace.uri)
    return load_predictor(workspace.uri)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    rows = [row(text, label) for text, label in (("很好很好", "a"), ("太差太差", "b"))] * 5
    return load(tmp_path_factory.mktemp("classifier"), make_task(), rows, max_characters=6)


def test_long_texts_are_cut_and_told(classifier: Predictor) -> None:
    short, fits, long = classifier.predict(["很好", "很好很好很好", "很好很好很好太差太差太差"])
    assert [short.is_truncated, fits.is_truncated, long.is_truncated] == [False, False, True]
    assert long.to_json() == fits.to_json() | {"is_truncated": True}


def test_the_end_of_a_long_text_is_not_tagged(tmp_path: Path) -> None:
    tag = TaskSpec(name="t", family=Family.TAG, label="entities", labels=("物",))
    rows = [
        row(f"买了{word}很好", None, entities=(Entity(start=2, end=4, type="物"),))
        for word in ("耳机", "台灯", "键盘", "书包")
    ] * 4
    tagger = load(tmp_path, make_task(spec=tag), rows, max_characters=6)
    fits, long = tagger.predict(["买了耳机很好", "买了耳机很好买了台灯很好"])
    assert (fits.is_truncated, long.is_truncated) == (False, True)
    assert long.to_json() == fits.to_json() | {"is_truncated": True}


@pytest.mark.parametrize(
    ("lengths", "bound", "cut"),
    [
        ((10, 4), 8, (4, 4)), ((4, 10), 8, (4, 4)), ((5, 2), 6, (4, 2)), ((2, 5), 6, (2, 4)),
        ((9, 9), 7, (4, 3)), ((3, 3), 6, (3, 3)),
    ],
)  # fmt: skip
def test_the_longer_text_of_a_pair_is_cut_first(
    lengths: tuple[int, int], bound: int, cut: tuple[int, int]
) -> None:
    item = TextInput(text="a" * lengths[0], text_pair="b" * lengths[1])
    result, is_truncated = cut_input(item, bound)
    assert (len(result.text), len(result.text_pair or "")) == cut
    assert is_truncated == (sum(lengths) > bound)


def test_batches_do_not_change_answers(classifier: Predictor) -> None:
    texts = [f"{word}{n}" for n in range(70) for word in ("很好", "太差")]
    together = classifier.predict(texts)
    assert together == [classifier.predict([text])[0] for text in texts]
    assert classifier.predict([]) == []


def test_a_deadline_stops_it(classifier: Predictor) -> None:
    with deadline_at(time.monotonic() - 1), pytest.raises(OutOfTimeError):
        classifier.predict(["很好"])
