from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import pyfsb
from pyfsb.config import Family
from pyfsb.inference.deadline import OutOfTimeError, check_deadline, deadline_at
from tests.helpers.models import MODELS, write_model

GPT2 = "Wenzhong-GPT2-110M"


def test_without_a_deadline_nothing_stops() -> None:
    check_deadline()
    with deadline_at(None):
        check_deadline()
    with deadline_at(time.monotonic() + 60):
        check_deadline()


def test_a_deadline_ends_with_its_block() -> None:
    with deadline_at(time.monotonic() - 1), pytest.raises(OutOfTimeError, match="deadline passed"):
        check_deadline()
    check_deadline()


@pytest.mark.parametrize(
    ("name", "family", "inputs"),
    [
        (MODELS[0], Family.CLASSIFY, ["好" * 62] * 900),
        (MODELS[0], Family.PAIR, [("好" * 30, "很" * 30)] * 900),
        (MODELS[0], Family.TAG, ["好" * 62] * 900),
        (MODELS[0], Family.FILL_MASK, ["中[MASK]"] * 99),
        (GPT2, Family.GENERATE, ["中国"] * 3),
    ],
    ids=lambda value: str(value) if isinstance(value, Family) else "",
)
def test_predictors_stop_between_rows_or_batches(
    name: str, family: Family, inputs: list[Any], tmp_path: Path
) -> None:
    labels = () if family in (Family.FILL_MASK, Family.GENERATE) else ("O", "B-x")
    write_model(tmp_path, name, family, labels=labels)
    predictor = pyfsb.load(str(tmp_path))
    if family is Family.PAIR:
        from pyfsb.inference.pair import PairClassifier

        predictor = PairClassifier(
            predictor._model, predictor._tokenizer, name="p", max_tokens=64  # type: ignore[attr-defined]
        )  # fmt: skip
    num_calls = 0

    def slow(*_arguments: object) -> None:
        nonlocal num_calls
        num_calls += 1
        time.sleep(0.03)

    embeddings = predictor._model.get_input_embeddings()  # type: ignore[attr-defined]
    embeddings.register_forward_pre_hook(slow)
    with deadline_at(time.monotonic() + 0.06), pytest.raises(OutOfTimeError):
        predictor.predict(inputs)
    assert num_calls <= 3
