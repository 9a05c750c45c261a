"""UniMC on a stock BERT: rows, logits, losses and answers of the original."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from pyfsb.models.architectures.unimc import masked_hidden
from pyfsb.models.key_maps import KeyMap
from pyfsb.models.language_losses import vocabulary_logits
from pyfsb.models.row_losses import ChoiceLoss, choice_logits
from pyfsb.models.row_objectives import frame_ids
from pyfsb.objectives.multiple_choice import (
    NO_TARGET,
    ChoiceSample,
    EncodedChoice,
    MultipleChoice,
)
from pyfsb.objectives.row_objective import SampleKey
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)
from tests.helpers.row_cases import case_tokenizer, deviation, original_tokenize, tensors

KEYS = KeyMap(rules=((r"^bert\.", ""),), dropped=(r"bert\.bert\.embeddings\.position_ids",))


def samples_of(case: ReferenceCase) -> list[ChoiceSample]:
    return [
        ChoiceSample(
            text=row["texta"], text_pair=row.get("textb", ""), question=row.get("question", ""),
            options=tuple(row["choice"]), answer=row.get("label", 0),
        )
        for row in case.json("samples.json")
    ]  # fmt: skip


def objective(case: ReferenceCase, **changes: Any) -> MultipleChoice:
    settings = {
        "frame": frame_ids(case_tokenizer(case)), "yes_id": case.config["yes_token"],
        "no_id": case.config["no_token"], "max_positions": case.config["args"]["max_length"],
        "ordinary": np.arange(5, case.config["model"]["vocab_size"]), "hides_tokens": False,
        "legacy_shortening": True, "legacy_targets": True,
    }  # fmt: skip
    return MultipleChoice(**{**settings, **changes})


def encode(case: ReferenceCase, **changes: Any) -> tuple[MultipleChoice, list[EncodedChoice]]:
    ours = objective(case, **changes)
    tokenize = original_tokenize(case)
    return ours, [ours.encode(sample, tokenize) for sample in samples_of(case)]


def original(case: ReferenceCase) -> BertForMaskedLM:
    model = BertForMaskedLM(BertConfig(**case.config["model"])).eval()
    report = model.load_state_dict(KEYS.convert(case.weights()), strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) <= set(model.all_tied_weights_keys)
    model.tie_weights()
    return model


def keys(count: int) -> list[SampleKey]:
    return [SampleKey(seed=1, sample_id=number, data_pass=0) for number in range(count)]


@reference_cases("unimc")
def test_rows_are_those_of_the_original(case: ReferenceCase) -> None:
    ours, rows = encode(case)
    batch, given = ours.collate(rows, keys(len(rows))).arrays, case.inputs()
    width = given["input_ids"].shape[1]
    targets = np.full(given["mlmlabels"].numel(), NO_TARGET)
    targets[batch["target_positions"]] = batch["target_ids"]
    slots = batch["slot_positions"]
    slots = np.where(slots < 0, -1, slots % width)
    masks = np.full(given["clslabels_mask"].shape, -10000.0)
    firsts = np.zeros(given["mlmlabels_mask"].shape)
    for number, row in enumerate(slots):
        masks[number, row[row >= 0]] = 0
        firsts[number, row[0]] = 1
    found = {
        "input_ids": batch["input_ids"],
        "token_type_ids": batch["token_type_ids"],
        "position_ids": batch["position_ids"],
        "attention_mask": batch["visible"].astype(float),
        "valid": batch["visible"].any(-1).astype(float),
        "label_slots": slots,
        "clslabels": slots[np.arange(len(rows)), batch["answers"]],
        "clslabels_mask": masks,
        "mlmlabels": targets.reshape(given["mlmlabels"].shape),
        "mlmlabels_mask": firsts,
    }
    assert set(found) == set(given)
    for name, values in found.items():
        assert deviation(values, given[name]) == 0, name


@reference_cases("unimc")
@torch.no_grad()
def test_logits_and_loss_are_those_of_the_original(case: ReferenceCase) -> None:
    ours, rows = encode(case)
    arrays, given, expected = (
        tensors(ours.collate(rows, keys(len(rows))).arrays),
        case.inputs(),
        case.outputs(),
    )
    model = original(case)
    inputs = {
        name: arrays[name] for name in ("input_ids", "visible", "position_ids", "token_type_ids")
    }
    logits = vocabulary_logits(model, masked_hidden(model, **inputs))
    found = {
        "mlm_logits": logits,
        "cls_logits": logits[..., case.config["yes_token"]] + given["clslabels_mask"],
        "loss": ChoiceLoss(model)(**arrays) / len(rows),
    }
    assert set(found) == set(expected)
    real = given["valid"].bool()
    assert deviation(found["mlm_logits"][real], expected["mlm_logits"][real]) <= ABSOLUTE_TOLERANCE
    assert deviation(found["cls_logits"][real], expected["cls_logits"][real]) <= 1e-3  # of -10000
    slots = given["clslabels_mask"] == 0
    assert (
        deviation(found["cls_logits"][slots], expected["cls_logits"][slots]) <= ABSOLUTE_TOLERANCE
    )
    assert float(found["loss"]) == pytest.approx(
        float(expected["loss"]), rel=RELATIVE_LOSS_TOLERANCE
    )


@reference_cases("unimc")
@torch.no_grad()
def test_answers_are_those_of_the_original(case: ReferenceCase) -> None:
    ours, rows = encode(case)
    logits = choice_logits(original(case), tensors(ours.collate_inputs(rows)))
    for expected, logits_S in zip(case.json("predictions.json"), logits, strict=True):
        scores = logits_S.softmax(-1).tolist()
        assert int(logits_S.argmax()) == expected["label"]
        # Options that the original shortened to the same text share one entry, the last one's.
        named = dict(zip(expected["choice"], scores, strict=False))
        assert named == pytest.approx(expected["score"], abs=1.1e-5)


@reference_cases("unimc")
def test_ours_keeps_options_and_ignores_padding(case: ReferenceCase) -> None:
    ours, rows = encode(case, legacy_shortening=False, legacy_targets=False, max_positions=512)
    tokenize, frame = original_tokenize(case), ours.frame
    for sample, row in zip(samples_of(case), rows, strict=True):
        assert len(row.slots_S) == len(sample.options)
        ends = [*row.slots_S[1:].tolist(), row.zone_end]
        for slot, end, option in zip(row.slots_S.tolist(), ends, sample.options, strict=True):
            assert row.ids_T[slot] == frame.mask
            assert row.ids_T[slot + 1 : end].tolist() == tokenize(option).ids_T.tolist()
        assert row.positions_T.max() < ours.max_positions
    batch = ours.collate(rows, keys(len(rows))).arrays
    assert set(batch["target_ids"].tolist()) == {ours.yes_id, ours.no_id}
    assert (
        batch["target_positions"].tolist()
        == batch["slot_positions"][batch["slot_positions"] >= 0].tolist()
    )
