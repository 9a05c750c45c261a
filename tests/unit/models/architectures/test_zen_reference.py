"""ZEN1 and ZEN2 compute what the original modules computed, output by output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pyfsb.models.architectures import zen1, zen2
from pyfsb.models.architectures.zen_layers import relative_sinusoids
from pyfsb.models.key_maps import check_keys
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)

NGRAMS = ("input_ngram_ids", "ngram_position_matrix")
HEADS = {
    "PreTraining": "ForPreTraining",
    "MaskedLM": "ForMaskedLM",
    "Sequence": "ForSequenceClassification",
    "Token": "ForTokenClassification",
    "Question": "ForQuestionAnswering",
}


class Case:
    """A case with its modules loaded through the key map."""

    def __init__(self, case: ReferenceCase, module: Any) -> None:
        self.module = module
        self.prefix = {zen1: "Zen1", zen2: "Zen2"}[module]
        self.settings = case.config
        self.inputs = case.inputs()
        self.expected = case.outputs()
        self.state = case.weights()
        for other, stored in self.settings["tied_and_stored_once"].items():
            self.state[other] = self.state[stored]
        self.known: dict[str, Tensor] = {}

    def load(self, head: str, **changes: Any) -> PreTrainedModel:
        config = self.module.ARCHITECTURE.config(**self.settings["model"], **changes)
        own = f"Zen{HEADS[head]}/"
        state = {key.removeprefix(own): value for key, value in self.state.items()}
        if head in ("Sequence", "Token", "Question"):
            state = {key: value for key, value in state.items() if not key.startswith("cls.")}
        elif head == "MaskedLM":
            state = {key: value for key, value in state.items() if "seq_relationship" not in key}
        state = {key: value for key, value in state.items() if "/" not in key}
        state = self.module.ARCHITECTURE.key_map.convert(state)
        model = getattr(self.module, self.prefix + HEADS[head])(config).eval()
        tied = [key for key in model.state_dict() if key.startswith("cls.predictions.decoder.")]
        check_keys(state, model.state_dict(), optional=tied, source=head)
        model.load_state_dict(state, strict=False)
        model.tie_weights()
        return model

    def take(self, *names: str) -> dict[str, Tensor]:
        return {name: self.inputs[name] for name in names}

    @property
    def unmasked(self) -> dict[str, Tensor]:
        return {
            **self.take("input_ids", *NGRAMS),
            "ngram_attention_mask": torch.ones_like(self.inputs["input_ngram_ids"]),
        }

    def check(self) -> None:
        assert set(self.known) == set(self.expected), "names that this test does not compare"
        for name, found in self.known.items():
            wanted = self.expected[name]
            assert found.shape == wanted.shape, name
            limit = RELATIVE_LOSS_TOLERANCE * abs(wanted) if name.endswith("loss") else None
            difference = (found - wanted).abs().max()
            assert difference <= (ABSOLUTE_TOLERANCE if limit is None else limit), name


def pretraining(case: Case, ignored: int | None) -> None:
    """Everything that both versions share."""
    model = case.load("PreTraining", legacy_ignored_label=ignored)
    masks = case.take(
        "input_ids", *NGRAMS, "attention_mask", "token_type_ids",
        "ngram_attention_mask", "ngram_token_type_ids",
    )  # fmt: skip
    states = model.bert(**masks, output_hidden_states=True)
    case.known["embedding_output"], *layers = states.hidden_states
    case.known |= {f"hidden_states.{number}": layer for number, layer in enumerate(layers)}
    case.known["pooled_output"] = states.pooler_output
    case.known["ngram_embedding_output"] = model.bert.word_embeddings(
        case.inputs["input_ngram_ids"], case.inputs["ngram_token_type_ids"]
    )
    found = model(
        **masks,
        labels=case.inputs["masked_lm_labels"],
        next_sentence_label=case.inputs["next_sentence_label"],
    )
    case.known["prediction_logits"] = found.prediction_logits
    case.known["seq_relationship_logits"] = found.seq_relationship_logits
    case.known["pretraining_loss"] = found.loss
    plain = model.bert(**case.unmasked)
    case.known["no_masks.last_hidden_state"] = plain.last_hidden_state
    case.known["no_masks.pooled_output"] = plain.pooler_output


@torch.no_grad()
@reference_cases("zen1")
def test_zen1_is_the_original(case: ReferenceCase) -> None:
    checked = Case(case, zen1)
    pretraining(checked, ignored=-1)
    packs = checked.settings["model"]["num_labels"] == 38
    legacy = {"legacy_masks_by_position": True, "legacy_ignored_label": 0}
    sequence = checked.load("Sequence", **legacy)
    token = checked.load("Token", **legacy, legacy_packs_valid_tokens=packs)
    inputs = checked.take("input_ids", *NGRAMS, "token_type_ids")
    valid = checked.inputs["valid_ids"]
    checked.known["sequence_logits"] = sequence(**inputs).logits
    checked.known["token_logits"] = token(**inputs, valid_ids=valid).logits
    if any(name.startswith("with_attention_mask.") for name in checked.expected):
        inputs |= checked.take("attention_mask")
        found = sequence(**inputs, labels=checked.inputs["sequence_labels"])
        checked.known["with_attention_mask.sequence_logits"] = found.logits
        checked.known["with_attention_mask.sequence_loss"] = found.loss
        found = token(**inputs, valid_ids=valid, labels=checked.inputs["token_labels"])
        checked.known["with_attention_mask.token_logits"] = found.logits
        checked.known["with_attention_mask.token_loss"] = found.loss
    checked.check()


@torch.no_grad()
@reference_cases("zen2")
def test_zen2_is_the_original(case: ReferenceCase) -> None:
    checked = Case(case, zen2)
    pretraining(checked, ignored=None)
    legacy = {"legacy_unmasked_ngrams": True, "legacy_ignored_label": 0}
    inputs = checked.take("input_ids", *NGRAMS, "token_type_ids", "attention_mask")
    found = checked.load("Sequence", **legacy)(**inputs, labels=checked.inputs["sequence_labels"])
    checked.known["sequence_logits"], checked.known["sequence_loss"] = found.logits, found.loss
    found = checked.load("Token", **legacy)(**inputs, labels=checked.inputs["token_labels"])
    checked.known["token_logits"], checked.known["token_loss"] = found.logits, found.loss
    found = checked.load("Question", **legacy)(**inputs)
    checked.known["qa_start_logits"] = found.start_logits
    checked.known["qa_end_logits"] = found.end_logits
    inputs |= checked.take("ngram_attention_mask")
    masked = checked.load("MaskedLM", legacy_unmasked_ngrams=True, legacy_ignored_label=-1)
    labels = checked.inputs["masked_lm_labels"].clamp(min=-1)  # -100 -> -1, as their caller does
    checked.known["masked_lm_loss"] = masked(**inputs, labels=labels).loss
    config = checked.module.ARCHITECTURE.config(**checked.settings["model"])
    length = checked.inputs["input_ids"].shape[1]
    checked.known["relative_positions"] = relative_sinusoids(length, config.head_width)
    checked.check()
