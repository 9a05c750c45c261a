"""TCBert against the original module; its two heads on one set of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from pyfsb.config import Family
from pyfsb.models.architectures import find_architecture
from pyfsb.models.architectures.tcbert import (
    ARCHITECTURE,
    TCBertConfig,
    TCBertForMaskedLM,
    TCBertForSequenceClassification,
    TCBertModel,
)
from pyfsb.models.heads import build_loss
from pyfsb.models.key_maps import check_keys
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)
from tests.helpers.row_cases import case_tokenizer, deviation

TINY = {
    "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 16, "num_labels": 3,
}  # fmt: skip


def pad(rows: list[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def original_batch(case: ReferenceCase) -> dict[str, Tensor]:
    """Prompt and text: a mask for each character of the topic, or as many as the case says."""
    settings, tokenizer = case.config, case_tokenizer(case)
    args, mask = settings["args"], "[MASK]"

    def encode(topic: str, text: str) -> list[int]:
        prompted = settings["prompt"].format(topic) + text
        return tokenizer(prompted, truncation=True, max_length=args["max_length"])["input_ids"]

    samples = case.json("samples.json")
    named = [encode(row["label"], row["content"]) for row in samples]
    masked = [encode(mask * len(row["label"]), row["content"]) for row in samples]
    asked = [encode(mask * args["fixed_lablen"], row["content"]) for row in samples]
    is_masked = pad(masked) == tokenizer.mask_token_id
    batch = {
        "labels": torch.tensor([settings["labels"].index(row["label"]) for row in samples]),
        "mlmlabels": pad(named).where(is_masked, -100),
    }
    for prefix, rows in (("", masked), ("predict.", asked)):
        batch |= {
            f"{prefix}input_ids": pad(rows),
            f"{prefix}attention_mask": pad([[1] * len(row) for row in rows]),
            f"{prefix}token_type_ids": torch.zeros_like(pad(rows)),
        }
    return batch


def load(kind: Any, case: ReferenceCase) -> Any:
    """One of the classes with the case's weights, nothing missing but the other's head."""
    settings = case.config
    model = kind(TCBertConfig(**settings["model"], num_labels=settings["args"]["num_labels"]))
    state = ARCHITECTURE.key_map.convert(case.weights())
    other = "classifier." if kind is TCBertForMaskedLM else "cls."
    state = {name: tensor for name, tensor in state.items() if not name.startswith(other)}
    tied = model.all_tied_weights_keys if kind is TCBertForMaskedLM else ()
    check_keys(state, model.state_dict(), optional=tied, source="case")
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    return model.eval()


@reference_cases("tcbert")
def test_rows_are_those_of_the_original(case: ReferenceCase) -> None:
    found, given = original_batch(case), case.inputs()
    assert set(found) == set(given)
    for name, values in found.items():
        assert deviation(values, given[name]) == 0, name


@reference_cases("tcbert")
@torch.no_grad()
def test_outputs_are_those_of_the_original(case: ReferenceCase) -> None:
    given, expected = case.inputs(), case.outputs()
    classes, words = (
        load(kind, case) for kind in (TCBertForSequenceClassification, TCBertForMaskedLM)
    )
    names = ("input_ids", "attention_mask", "token_type_ids")
    trained = {name: given[name] for name in names}
    masked = words(**trained, labels=given["mlmlabels"])
    found = {
        "train.logits": classes(**trained).logits,
        "train.mlm_logits": masked.logits,
        "train.mlm_loss": masked.loss,
        "predict.logits": classes(**{name: given[f"predict.{name}"] for name in names}).logits,
    }
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        if name.endswith("loss"):
            assert float(found[name]) == pytest.approx(float(wanted), rel=RELATIVE_LOSS_TOLERANCE)
        else:
            assert deviation(found[name], wanted) <= ABSOLUTE_TOLERANCE, name


def make(kind: Any = TCBertForSequenceClassification, **changes: Any) -> Any:
    torch.manual_seed(3)
    model = kind(TCBertConfig(**{**TINY, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@torch.no_grad()
def test_a_class_hangs_on_the_first_state_alone() -> None:
    model, ids = make(), torch.tensor([[2, 7, 8, 9, 3]])
    first = model.bert(ids).last_hidden_state[:, 0]
    expected = functional.linear(first, model.classifier.weight, model.classifier.bias)
    torch.testing.assert_close(model(ids).logits, expected)
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]
    assert TCBertModel(model.config).eval()(ids).pooler_output.shape == (1, 16)


def test_it_is_registered_and_both_heads_share_a_folder(tmp_path: Path) -> None:
    found = find_architecture("tcbert")
    assert found is ARCHITECTURE
    assert found.classes[Family.CLASSIFY] is TCBertForSequenceClassification
    model, ids = make(), torch.tensor([[2, 7, 8, 9, 3]])
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)
    words = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert isinstance(words, TCBertForMaskedLM)
    torch.testing.assert_close(
        words.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight
    )
    assert words.cls.predictions.decoder.weight is words.get_input_embeddings().weight
    with torch.no_grad():
        states = words.eval().bert(ids).last_hidden_state
        torch.testing.assert_close(words.lm_logits(states[:, 2]), words(ids).logits[:, 2])


def test_the_platforms_loss_trains_it() -> None:
    model = make(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    loss = build_loss(model, Family.CLASSIFY, "buckets")
    ids = torch.tensor([2, 7, 8, 3, 2, 9, 3])
    batch: dict[str, Any] = {
        "input_ids": ids, "lengths": torch.tensor([4, 3]), "target_ids": torch.tensor([2, 0]),
    }  # fmt: skip
    found = loss(**batch)
    alone = model(pad([[2, 7, 8, 3], [2, 9, 3]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])).logits
    expected = functional.cross_entropy(alone, batch["target_ids"], reduction="sum")
    torch.testing.assert_close(found, expected)
