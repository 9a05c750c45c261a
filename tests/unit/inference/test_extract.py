from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from pyfsb.errors import ConfigError
from pyfsb.inference import extract
from pyfsb.inference.deadline import OutOfTimeError, deadline_at
from pyfsb.inference.extract import ExtractionInput, Extractor
from pyfsb.models.architectures.ubert import UbertConfig, UbertForExtraction
from pyfsb.models.architectures.uniex import UniexConfig, UniexForExtraction
from pyfsb.models.row_losses import ExtractionLoss
from pyfsb.models.row_objectives import build_extraction_objective
from pyfsb.objectives.extraction import ExtractionSample
from pyfsb.training.row_source import RowSource
from tests.helpers.row_texts import (
    TINY,
    extraction_samples,
    relation_samples,
    tiny_tokenize,
    tiny_tokenizer,
)


def build(kind: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    if kind == "ubert":
        return UbertForExtraction(UbertConfig(**TINY, biaffine_size=24, **changes))
    return UniexForExtraction(UniexConfig(**TINY, triaffine_hidden_size=16, **changes))


def extractor(model: Any) -> Extractor:
    return Extractor(model, tiny_tokenizer(), name="x", max_tokens=64)


def teach(model: Any, samples: list[ExtractionSample], *, num_steps: int) -> Extractor:
    """Train until the samples are known by heart."""
    objective = build_extraction_objective(model.config, tiny_tokenizer(), max_tokens=64)
    source = RowSource(samples, objective, tiny_tokenize(), seed=1)
    numbers = np.arange(len(samples))
    batch = source.collate(numbers, numbers * 0).inputs
    loss, optimizer = ExtractionLoss(model), torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss(**batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return extractor(model)


def ask(sample: ExtractionSample) -> ExtractionInput:
    return ExtractionInput(
        text=sample.text, kinds=sample.kinds, task=sample.task, subtask=sample.subtask,
        relations=sample.schema,
    )  # fmt: skip


def gold(sample: ExtractionSample) -> set[tuple[int, int, str]]:
    return {(span.start, span.end, sample.kinds[span.kind]) for span in sample.spans}


def test_ubert_finds_what_it_was_taught() -> None:
    samples = extraction_samples()
    model = teach(build("ubert"), samples, num_steps=80)
    answers = model.predict([ask(sample) for sample in samples])
    for sample, answer in zip(samples, answers, strict=True):
        assert {(e.start, e.end, e.type) for e in answer.entities} == gold(sample)
        assert all(sample.text[e.start : e.end] == e.text for e in answer.entities)
        assert all(0.5 < e.score <= 1 for e in answer.entities)
        assert not answer.is_truncated
        assert [e.start for e in answer.entities] == sorted(e.start for e in answer.entities)


@pytest.mark.parametrize("two_step", [False, True])
def test_uniex_finds_entities_and_relations(two_step: bool) -> None:
    samples = relation_samples()
    model = teach(build("uniex", two_step=two_step), samples, num_steps=100)
    answers = model.predict([ask(sample) for sample in samples])
    for sample, answer in zip(samples, answers, strict=True):
        assert {(e.start, e.end, e.type) for e in answer.entities} == gold(sample)
        expected = {
            (sample.spans[r.subject].start, r.predicate, sample.spans[r.object].start)
            for r in sample.relations
        }
        found = {(r.subject.start, r.predicate, r.object.start) for r in answer.relations}
        assert found == expected


def test_a_classification_gives_scores() -> None:
    sample = ExtractionSample(
        text="很好吃", kinds=("好", "坏"), task="分类任务", subtask="店", answers=frozenset({1})
    )
    answer = teach(build("ubert"), [sample], num_steps=40).predict([ask(sample)])[0]
    assert list(answer.scores) == ["好", "坏"]
    assert answer.scores["坏"] > 0.5 > answer.scores["好"]
    assert answer.entities == ()


def test_a_question_has_one_answer_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "SPAN_THRESHOLD", 0.0)
    for kind, task in (
        ("ubert", {"subtask": "抽取式阅读理解"}),
        ("uniex", {"task": "抽取式阅读理解"}),
    ):
        asked = ExtractionInput(text="李白在长安写诗", kinds=("在什么地", "什么人"), **task)
        answer = extractor(build(kind)).predict([asked])[0]
        assert sorted(e.type for e in answer.entities) == ["什么人", "在什么地"]


@pytest.mark.parametrize("kind", ["ubert", "uniex"])
def test_answers_do_not_depend_on_the_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = extractor(build(kind))
    asked = [
        ExtractionInput(text="李白在长安写诗", kinds=("人", "地", "书")),
        ExtractionInput(text="很好", kinds=("体育新闻",)),
        ExtractionInput(text="abcd 12，北京大学", kinds=("教育", "人")),
    ]
    together = model.predict(asked)
    monkeypatch.setattr(extract, "BATCH_ROWS", 1)
    for answer, alone in zip(together, model.predict(asked), strict=True):
        assert [(e.start, e.end, e.type) for e in answer.entities] == [
            (e.start, e.end, e.type) for e in alone.entities
        ]
        assert [e.score for e in answer.entities] == pytest.approx(
            [e.score for e in alone.entities], abs=2e-6
        )
    assert model.predict([]) == []


def test_models_trained_on_the_originals_cells_answer_from_the_text_alone() -> None:
    asked = [ExtractionInput(text="李白在长安写诗", kinds=("人", "地"))]
    for kind in ("ubert", "uniex"):
        plain, legacy = (extractor(build(kind, legacy_cells=flag)) for flag in (False, True))
        assert plain.predict(asked) == legacy.predict(asked)


@pytest.mark.parametrize("kind", ["ubert", "uniex"])
def test_long_texts_are_cut_and_told(kind: str) -> None:
    answer = extractor(build(kind)).predict([ExtractionInput(text="好" * 100, kinds=("人",))])[0]
    assert answer.is_truncated
    assert all(e.end <= 64 for e in answer.entities)


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("ubert", {"text": " "}, "input 1: the text is empty"),
        ("ubert", {"kinds": ()}, "input 1: no kinds to look for"),
        ("uniex", {"kinds": ("人", "人")}, "input 1: kind 1 .* stands twice"),
        ("ubert", {"kinds": ("人" * 64,)}, "input 1: kind 0 .* has .* and leaves 0 of 64"),
        ("ubert", {"relations": (("人", "在", "地"),)}, "input 1: ubert knows no relations"),
        ("uniex", {"task": "分类任务"}, "input 1: uniex does not classify"),
    ],
)
def test_wrong_inputs_are_named(kind: str, changes: dict[str, Any], text: str) -> None:
    good = {"text": "李白" * 10, "kinds": ("人",)}
    with pytest.raises(ConfigError, match=text):
        extractor(build(kind)).predict(
            [ExtractionInput(**good), ExtractionInput(**{**good, **changes})]
        )


def test_the_deadline_is_kept() -> None:
    for kind in ("ubert", "uniex"):
        with deadline_at(time.monotonic() - 1), pytest.raises(OutOfTimeError):
            extractor(build(kind)).predict([ExtractionInput(text="好", kinds=("人",))])


def test_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="bert does not extract; expected ubert or uniex"):
        extractor(BertForMaskedLM(BertConfig(**TINY)))
