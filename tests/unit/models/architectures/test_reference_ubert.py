"""UBERT against the original: rows, cells, logits, losses and answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyfsb.models.architectures.ubert import ARCHITECTURE, UbertConfig, UbertForExtraction
from pyfsb.models.key_maps import check_keys
from pyfsb.models.row_losses import ExtractionLoss
from pyfsb.models.row_objectives import frame_ids
from pyfsb.objectives.extraction import READING_TASK, ExtractionSample, GoldSpan, find_spans
from pyfsb.objectives.extraction_ubert import EncodedKinds, UbertExtraction
from pyfsb.objectives.row_objective import SampleKey
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)
from tests.helpers.row_cases import (
    case_tokenizer,
    deviation,
    original_offsets,
    original_tokenize,
    tensors,
)


def samples_of(case: ReferenceCase) -> list[ExtractionSample]:
    found = []
    for row in case.json("samples.json"):
        spans = [
            GoldSpan(start=first, end=last + 1, kind=number)
            for number, choice in enumerate(row["choices"])
            for entity in choice.get("entity_list", ())
            for first, last in filter(None, entity["entity_idx"])  # empty ones count as none
        ]
        answers = [number for number, choice in enumerate(row["choices"]) if choice.get("label")]
        found.append(
            ExtractionSample(
                text=row["text"], kinds=tuple(c["entity_type"] for c in row["choices"]),
                task=row["task_type"], subtask=row["subtask_type"], spans=tuple(spans),
                answers=frozenset(answers),
            )
        )  # fmt: skip
    return found


def objective(case: ReferenceCase, *, legacy: bool) -> UbertExtraction:
    args, positions = case.config["args"], case.config["model"]["max_position_embeddings"]
    return UbertExtraction(
        frame=frame_ids(case_tokenizer(case)), max_tokens=args["max_length"] if legacy else positions,
        num_kinds=args["num_labels"] if legacy else None, legacy_cells=legacy,
    )  # fmt: skip


def encode(case: ReferenceCase, *, legacy: bool) -> tuple[UbertExtraction, list[EncodedKinds]]:
    ours, tokenize = objective(case, legacy=legacy), original_tokenize(case)
    return ours, [ours.encode(sample, tokenize) for sample in samples_of(case)]


def original_batch(case: ReferenceCase) -> dict[str, Tensor]:
    """The batch, kinds in the order that numpy drew for the original."""
    ours, encoded = encode(case, legacy=True)
    random, orders = np.random.RandomState(case.config["seed"]), []
    for sample in encoded:
        filled = [number for number, row in enumerate(sample.rows) if row.cells]
        others = np.array([number for number, row in enumerate(sample.rows) if not row.cells])
        drawn = np.arange(others.size)
        random.shuffle(drawn)
        orders.append([*filled, *others[drawn].tolist()] if others.size else filled)
    return tensors(ours.collate_legacy(encoded, orders).arrays)


def original(case: ReferenceCase, **changes: Any) -> UbertForExtraction:
    model = UbertForExtraction(UbertConfig(**{**case.config["model"], **changes})).eval()
    state = ARCHITECTURE.key_map.convert(case.weights())
    check_keys(state, model.state_dict(), source="case")
    model.load_state_dict(state)
    return model


@reference_cases("ubert")
def test_rows_and_cells_are_those_of_the_original(case: ReferenceCase) -> None:
    found, given = original_batch(case), case.inputs()
    found["span_labels_mask"] = found.pop("span_mask")
    assert set(found) == set(given)
    for name, values in found.items():
        assert deviation(values, given[name]) == 0, name


@reference_cases("ubert")
@torch.no_grad()
def test_logits_and_loss_are_those_of_the_original(case: ReferenceCase) -> None:
    batch, expected, model = original_batch(case), case.outputs(), original(case)
    rows = {
        name: batch[name].flatten(0, 1)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    output = model(**rows)
    assert output.logits is not None
    logits = output.logits.view(batch["span_mask"].shape)
    found = {
        "last_hidden_state": output.last_hidden_state,
        "span_logits": logits + batch["span_mask"],
        "loss": ExtractionLoss(model)(**batch) / len(batch["input_ids"]),
    }
    assert set(found) == set(expected)
    assert (
        deviation(found["last_hidden_state"], expected["last_hidden_state"]) <= ABSOLUTE_TOLERANCE
    )
    open_cells = batch["span_mask"] == 0
    wanted = expected["span_logits"]
    scale = max(1.0, float(wanted[open_cells].abs().max()) / 30)
    assert (
        deviation(found["span_logits"][open_cells], wanted[open_cells])
        <= scale * ABSOLUTE_TOLERANCE
    )
    assert deviation(found["span_logits"], wanted) <= 2e-3  # of 10000
    assert float(found["loss"]) == pytest.approx(
        float(expected["loss"]), rel=RELATIVE_LOSS_TOLERANCE
    )


@torch.no_grad()
def probabilities(case: ReferenceCase, rows: dict[str, Tensor]) -> np.ndarray:
    """Of all cells of rows, [C, T, T]."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    logits = original(case)(**{name: rows[name] for name in names}).logits
    assert logits is not None
    return logits.sigmoid().numpy()


def original_start(case: ReferenceCase, sample: ExtractionSample, kind: str, last: str) -> int:
    """Where the original believes that the text begins, in a question of its own making."""
    tokenize = original_tokenize(case)
    head = f"{sample.task}[SEP]{sample.subtask}[SEP]{kind}"
    if sample.subtask == READING_TASK:  # it forgets the task and takes the last kind for all
        head = f"{sample.subtask}[SEP]{last}"
    text = tokenize(sample.text).ids_T.tolist()
    row = [-1, *tokenize(sample.text, f"{head}[SEP]{{text}}").ids_T.tolist()]
    return next(n for n in range(len(row)) if row[n : n + len(text)] == text)


def original_names(
    case: ReferenceCase, sample: ExtractionSample, number: int, square: np.ndarray
) -> tuple[list[tuple[str, float]], list[float]]:
    """What the original's decoding makes of a kind's allowed cells; scores of those without name."""
    tokenizer, threshold = case_tokenizer(case), case.config["args"]["threshold"]
    offsets = original_offsets(sample.text, tokenizer)
    start = original_start(case, sample, sample.kinds[number], sample.kinds[-1])
    if sample.subtask == READING_TASK:
        first, last = np.unravel_index(int(square.argmax()), square.shape)
        cells = [(int(first), int(last), float(square[first, last]))]
        cells = [cell for cell in cells if cell[2] > threshold]
    else:
        cells = find_spans(square, threshold=threshold, max_spans=None)
    names: dict[str, float] = {}
    unnamed: list[float] = []
    for first, last, score in cells:
        ends = [place - start for place in (first, last)]
        known = all(0 <= end < len(offsets) for end in ends)
        name = sample.text[offsets[ends[0]][0] : offsets[ends[1]][-1] + 1] if known else ""
        if name:
            names.setdefault(name, score)
        else:
            unnamed.append(score)
    return list(names.items()), unnamed


@reference_cases("ubert")
def test_answers_are_those_of_the_original(case: ReferenceCase) -> None:
    ours, encoded = encode(case, legacy=True)
    for sample, row, expected in zip(
        samples_of(case), encoded, case.json("predictions.json"), strict=True
    ):
        kinds = replace(ours, num_kinds=len(row.rows))
        batch = tensors(kinds.collate_legacy([row], [range(len(row.rows))]).arrays)
        squares = probabilities(case, {name: values[0] for name, values in batch.items()})
        choices = expected["choices"]
        if sample.is_classification:
            best = int(squares[:, 0, 0].argmax())
            assert choices[best]["score"] == pytest.approx(float(squares[best, 0, 0]), abs=1.1e-5)
            assert [n for n, choice in enumerate(choices) if "score" in choice] == [best]
            continue
        for number, choice in enumerate(choices):
            first = row.rows[number].first
            square = squares[number].copy()
            square[:first], square[:, :first] = 0, 0
            found, unnamed = original_names(case, sample, number, square)
            wanted = [(entity["entity_name"], entity["score"]) for entity in choice["entity_list"]]
            named = [(name, score) for name, score in wanted if name]
            assert [name for name, _ in found] == [name for name, _ in named]
            assert [s for _, s in found] == pytest.approx([s for _, s in named], abs=1.1e-5)
            # How much of the padding it looks at no case says; what it finds there has no name.
            for score in (score for name, score in wanted if not name):
                assert any(score == pytest.approx(other, abs=1.1e-5) for other in unnamed)


@reference_cases("ubert")
def test_ours_scores_tokens_of_the_text_only(case: ReferenceCase) -> None:
    """The same scores, of the cells on and above the diagonal of the text that is there."""
    ours, encoded = encode(case, legacy=False)
    for sample, row in zip(samples_of(case), encoded, strict=True):
        batch = tensors(ours.collate_inputs(row.rows))
        squares = probabilities(case, batch)
        text = original_tokenize(case)(sample.text)
        for kind, square in zip(row.rows, squares, strict=True):
            assert 0 <= kind.first < kind.first + kind.num_scored <= kind.ids_T.size
            if sample.is_classification:
                assert (kind.first, kind.num_scored) == (0, 1)
                continue
            place = slice(kind.first, kind.first + kind.num_scored)
            assert kind.ids_T[place].tolist() == text.ids_T[: kind.num_scored].tolist()
            assert kind.ids_T[place.stop :].tolist() == [ours.frame.sep]
            upper = np.triu(square[place, place])
            assert np.triu(upper).tolist() == upper.tolist()
            spans = find_spans(square[place, place], threshold=0.5, max_spans=None)
            assert len(spans) == int((upper > 0.5).sum())


@reference_cases("ubert")
@torch.no_grad()
def test_the_loss_of_ours_does_not_depend_on_the_batch(case: ReferenceCase) -> None:
    ours, encoded = encode(case, legacy=False)
    loss = ExtractionLoss(original(case))
    keys = [SampleKey(seed=1, sample_id=number, data_pass=0) for number in range(len(encoded))]
    together = loss(**tensors(ours.collate(encoded, keys).arrays))
    alone = [
        loss(**tensors(ours.collate([row], [key]).arrays))
        for row, key in zip(encoded, keys, strict=True)
    ]
    assert float(together) == pytest.approx(float(sum(alone)), rel=1e-5)
