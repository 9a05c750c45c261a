from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, BartForSequenceClassification

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models.building import build_model
from pyfsb.models.heads import build_loss, default_layout, logits_at, pad_flat, vocabulary_logits
from tests.helpers.models import ENCODERS, MODELS, PIECES, make_model

LENGTHS, LABELS = torch.tensor([7, 3, 12, 1]), ("a", "b", "c")
LAYOUTS = ("flat", "packed", "buckets", "padded")


def draw_ids(count: int = 23, seed: int = 1) -> Tensor:
    return torch.randint(5, len(PIECES), (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_logits_at_positions_equal_the_full_forward_pass(name: str) -> None:
    model = make_model(name, Family.FILL_MASK if name in ENCODERS else Family.GENERATE)
    ids, mask = pad_flat(draw_ids(), LENGTHS, 0)
    positions = torch.tensor([0, 5, 12, 19, 35])
    with torch.no_grad():
        full = model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[positions]
        ours = logits_at(model, ids, mask, positions)
    torch.testing.assert_close(ours, full, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_sum_over_targets(name: str, layout: Any) -> None:
    family = Family.FILL_MASK if name in ENCODERS else Family.GENERATE
    model, positions, targets = make_model(name, family), torch.tensor([1, 3, 9]), draw_ids(3)
    loss = build_loss(model, family, layout, micro_tokens=64)
    ids, mask = pad_flat(draw_ids(), LENGTHS, 0)
    with torch.no_grad():
        found = loss(
            input_ids=draw_ids(), lengths=LENGTHS, target_positions=positions, target_ids=targets
        )
        logits = model(input_ids=ids, attention_mask=mask).logits[mask.bool()][positions]
    expected = functional.cross_entropy(logits, targets, reduction="mean") * 3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_classification_equals_the_padded_reference(name: str, layout: Any) -> None:
    model = make_model(name, Family.CLASSIFY, labels=LABELS)
    targets, types = torch.tensor([0, 2, 1, 1]), (torch.arange(23) % 2 == 0).long()
    ids, mask = pad_flat(draw_ids(), LENGTHS, 0)
    inputs = {"input_ids": ids, "attention_mask": mask}
    flat = {"input_ids": draw_ids(), "lengths": LENGTHS, "target_ids": targets}
    if name == MODELS[0]:
        inputs["token_type_ids"], flat["token_type_ids"] = pad_flat(types, LENGTHS, 0)[0], types
    loss = build_loss(model, Family.PAIR, layout, micro_tokens=64)(**flat)
    expected = functional.cross_entropy(model(**inputs).logits, targets, reduction="sum")
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    weight = next(model.parameters())
    first, second = (torch.autograd.grad(value, weight)[0] for value in (loss, expected))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_tagging_equals_the_padded_reference(name: str, layout: Any) -> None:
    model = make_model(name, Family.TAG, labels=LABELS)
    positions, targets = torch.tensor([0, 2, 8, 22]), torch.tensor([0, 2, 1, 1])
    ids, mask = pad_flat(draw_ids(), LENGTHS, 0)
    loss = build_loss(model, Family.TAG, layout, micro_tokens=64)
    found = loss(
        input_ids=draw_ids(), lengths=LENGTHS, target_positions=positions, target_ids=targets
    )
    logits = model(input_ids=ids, attention_mask=mask).logits[mask.bool()][positions]
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_encoder_decoders_are_classified_by_their_own_rows() -> None:
    config = AutoConfig.for_model(
        "bart", vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=20, pad_token_id=0, eos_token_id=2, num_labels=3,
    )  # fmt: skip
    model = BartForSequenceClassification(config).eval()
    ids, lengths = torch.tensor([5, 6, 2, 7, 2]), torch.tensor([3, 2])
    rows, mask = pad_flat(ids, lengths, 0)
    logits = build_loss(model, Family.CLASSIFY, "flat").logits(ids, lengths)
    torch.testing.assert_close(logits, model(input_ids=rows, attention_mask=mask).logits)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_padding_is_undone_by_its_mask(lengths: list[int]) -> None:
    ids = torch.arange(1, sum(lengths) + 1)
    rows, mask = pad_flat(ids, torch.tensor(lengths), 0)
    assert rows.shape == mask.shape == (len(lengths), max(lengths))
    assert torch.equal(rows[mask.bool()], ids)
    assert mask.sum(1).tolist() == lengths
    assert not rows[mask == 0].any()


def test_packed_batches_are_filled_with_documents_the_model_can_take() -> None:
    model = make_model(MODELS[0], Family.FILL_MASK)
    loss = build_loss(model, Family.FILL_MASK, "packed", micro_tokens=230)
    ids, lengths, types = loss._fill(draw_ids(), LENGTHS, torch.ones(23, dtype=torch.int64))
    assert ids.numel() == types.numel() == int(lengths.sum()) == 230
    assert lengths.tolist() == [*LENGTHS.tolist(), 64, 64, 64, 15]
    assert not ids[23:].any()
    assert loss._fill(ids, lengths, None)[1].tolist() == lengths.tolist()


def test_activations_of_padded_rows_are_checkpointed_by_the_model() -> None:
    model = make_model(MODELS[0], Family.FILL_MASK)
    build_loss(model, Family.FILL_MASK, "padded", checkpoints_activations=True)
    assert model.is_gradient_checkpointing


def test_layouts_by_architecture() -> None:
    assert default_layout("deberta-v2", "cpu") == default_layout("t5", "cuda") == "flat"
    assert default_layout("electra", "cuda") == "buckets"


def test_a_model_without_a_known_head_is_named() -> None:
    model = make_model(MODELS[0], Family.FILL_MASK)
    model.config.model_type = "electra"
    with pytest.raises(ConfigError, match="electra: no vocabulary head known"):
        vocabulary_logits(model, torch.zeros(1, 32))


@pytest.mark.parametrize("kind", ["albert", "bert", "megatron-bert", "zen2"])
def test_the_order_of_sentences_is_judged_as_by_the_whole_model(kind: str) -> None:
    shape = {
        "vocab_size": len(PIECES), "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32,
    }  # fmt: skip
    more = {"albert": {"embedding_size": 8}, "zen2": {"word_size": 4}}.get(kind, {})
    config = AutoConfig.for_model(kind, **shape, **more)
    model = build_model(config, Family.FILL_MASK, seed=1, has_order_head=True).eval()
    ids, mask = pad_flat(draw_ids(), LENGTHS, 0)
    labels, weights = torch.tensor([0, 1, 1, 0]), torch.tensor([7, 7, 0, 7])
    nothing = torch.empty(0, dtype=torch.long)
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask)
        found = build_loss(model, Family.FILL_MASK, "buckets")(
            input_ids=draw_ids(), lengths=LENGTHS, target_positions=nothing, target_ids=nothing,
            sentence_labels=labels, sentence_weights=weights,
        )  # fmt: skip
    logits = getattr(whole, "sop_logits", None)
    logits = whole.seq_relationship_logits if logits is None else logits
    expected = functional.cross_entropy(logits, labels, reduction="none") * weights
    torch.testing.assert_close(found, expected.sum())
