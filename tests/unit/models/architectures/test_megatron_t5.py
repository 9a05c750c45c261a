"""MegatronT5 against the original module, and what the original gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSeq2SeqLM

from pyfsb.config import Family
from pyfsb.errors import CheckpointError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.architectures.megatron_t5 import (
    ARCHITECTURE,
    MegatronT5ForConditionalGeneration,
    MegatronT5Model,
)
from pyfsb.models.architectures.megatron_t5_stacks import MegatronT5Config
from pyfsb.models.key_maps import check_keys
from pyfsb.models.loading import count_parameters
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)

TINY = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "decoder_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 24,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2, "initializer_range": 0.5,
}  # fmt: skip


def tiny(**changes: Any) -> MegatronT5ForConditionalGeneration:
    torch.manual_seed(3)
    return MegatronT5ForConditionalGeneration(MegatronT5Config(**{**TINY, **changes})).eval()


def ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 60, shape, generator=torch.Generator().manual_seed(seed))


def original(case: ReferenceCase, **changes: Any) -> MegatronT5ForConditionalGeneration:
    """The case's model, loaded through the key map with nothing missing and nothing left."""
    config = MegatronT5Config(**case.config["model"], **changes)
    model = MegatronT5ForConditionalGeneration(config).eval()
    state = ARCHITECTURE.key_map.convert(case.weights())
    check_keys(state, model.state_dict(), optional=model.all_tied_weights_keys, source="case")
    model.load_state_dict(state, strict=False)
    return model


@torch.no_grad()
def outputs_of(case: ReferenceCase) -> dict[str, Tensor]:
    model, given = original(case, legacy_cached_positions=True), case.inputs()
    source = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    labelled = model(**source, labels=given["labels"], output_hidden_states=True)
    explicit = model(
        **source,
        decoder_input_ids=given["decoder_input_ids"],
        decoder_attention_mask=given["decoder_attention_mask"],
    )
    before = model(
        input_ids=given["input_ids"], decoder_input_ids=given["decoder_input_ids"], use_cache=True
    )
    step = model(
        input_ids=given["input_ids"],
        decoder_input_ids=given["next_decoder_ids"],
        past_key_values=before.past_key_values,
    )
    found = {
        "labels.decoder_input_ids": model.prepare_decoder_input_ids_from_labels(given["labels"]),
        "labels.logits": labelled.logits,
        "labels.loss": labelled.loss,
        "encoder_last_hidden_state": labelled.encoder_last_hidden_state,
        "explicit.logits": explicit.logits,
        "no_masks.cached_step_logits": step.logits,
    }
    for name, states in (
        ("encoder_hidden_states", labelled.encoder_hidden_states),
        ("labels.decoder_hidden_states", labelled.decoder_hidden_states),
    ):
        found |= {f"{name}.{number}": state for number, state in enumerate(states)}
    return found


@reference_cases("megatron_t5")
def test_every_output_of_the_original(case: ReferenceCase) -> None:
    found, expected = outputs_of(case), case.outputs()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        if name.endswith("loss"):
            assert float(found[name]) == pytest.approx(float(tensor), rel=RELATIVE_LOSS_TOLERANCE)
        else:
            deviation = (found[name] - tensor).abs().max()
            assert deviation <= ABSOLUTE_TOLERANCE, (name, float(deviation))


@reference_cases("megatron_t5")
def test_ours_decodes_with_a_cache_as_without(case: ReferenceCase) -> None:
    given = case.inputs()
    both = torch.cat([given["decoder_input_ids"], given["next_decoder_ids"]], dim=1)
    deviations = {}
    for is_legacy in (False, True):
        model = original(case, legacy_cached_positions=is_legacy)
        with torch.no_grad():
            full = model(input_ids=given["input_ids"], decoder_input_ids=both).logits[:, -1]
            cache = model(
                input_ids=given["input_ids"],
                decoder_input_ids=given["decoder_input_ids"],
                use_cache=True,
            ).past_key_values
            step = model(
                input_ids=given["input_ids"],
                decoder_input_ids=given["next_decoder_ids"],
                past_key_values=cache,
            ).logits[:, -1]
        deviations[is_legacy] = float((full - step).abs().max())
    assert deviations[False] <= ABSOLUTE_TOLERANCE
    assert deviations[True] > 0.1


def test_the_published_shapes_pass_the_key_map() -> None:
    with torch.device("meta"):
        model = MegatronT5ForConditionalGeneration(MegatronT5Config())
    assert count_parameters(model) == 727_737_088
    state = ARCHITECTURE.key_map.convert(published_shapes())
    check_keys(state, model.state_dict(), optional=model.all_tied_weights_keys, source="published")
    del state["lm_head.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.bias"):
        check_keys(
            state, model.state_dict(), optional=model.all_tied_weights_keys, source="published"
        )


def published_shapes() -> dict[str, Tensor]:
    """Names and shapes in the published pytorch_model.bin of Randeng-MegatronT5-770M."""
    shapes: dict[str, tuple[int, ...]] = {"lm_head_bias": (21248,)}
    for owner in ("shared", "encoder.embed_tokens", "decoder.embed_tokens"):
        shapes[f"{owner}.word_embeddings.weight"] = (21248, 1024)
        shapes[f"{owner}.position_embeddings.weight"] = (512, 1024)
        shapes[f"{owner}.position_ids"] = (1, 512)
    for side in ("encoder", "decoder"):
        shapes |= norm(f"{side}.final_layer_norm")
        for number in range(24):
            layer = f"{side}.block.{number}"
            shapes |= attention(f"{layer}.T5LayerSelfAttention", "SelfAttention")
            if side == "decoder":
                shapes |= attention(f"{layer}.T5LayerCrossAttention", "EncDecAttention")
            shapes |= norm(f"{layer}.T5LayerFF.layer_norm")
            shapes |= linear(f"{layer}.T5LayerFF.DenseReluDense.wi", 1024, 4096)
            shapes |= linear(f"{layer}.T5LayerFF.DenseReluDense.wo", 4096, 1024)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def attention(owner: str, kind: str) -> dict[str, tuple[int, ...]]:
    shapes = norm(f"{owner}.layer_norm")
    for part in "qkvo":
        shapes |= linear(f"{owner}.{kind}.{part}", 1024, 1024)
    return shapes


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (1024,), f"{name}.bias": (1024,)}


def linear(name: str, width: int, out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def test_it_is_registered_and_survives_a_folder(tmp_path: Path) -> None:
    found = find_architecture("megatron-t5")
    assert found is ARCHITECTURE
    assert found.classes[Family.REWRITE] is MegatronT5ForConditionalGeneration
    model = tiny()
    model.lm_head.bias.data.normal_()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    source, target = ids(2, 7), ids(2, 5, seed=2)
    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits
        assert torch.equal(loaded(input_ids=source, decoder_input_ids=target).logits, expected)
        base = AutoModel.from_pretrained(tmp_path)
        assert isinstance(base, MegatronT5Model)
        hidden = base(input_ids=source, decoder_input_ids=target)[0]
    assert torch.equal(model.lm_logits(hidden), expected)
    assert loaded.lm_head.weight is loaded.model.decoder.embeddings.word_embeddings.weight


def test_a_future_token_never_changes_an_earlier_logit() -> None:
    model, source, target = tiny(), ids(1, 8), ids(1, 7, seed=2)
    changed = target.clone()
    changed[0, 4:] = ids(1, 3, seed=9)
    with torch.no_grad():
        first = model(input_ids=source, decoder_input_ids=target).logits
        second = model(input_ids=source, decoder_input_ids=changed).logits
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4:], second[:, 4:])


def test_padding_has_no_influence() -> None:
    model, source, target = tiny(), ids(1, 6), ids(1, 4, seed=2)
    pad = torch.nn.functional.pad
    with torch.no_grad():
        alone = model(input_ids=source, decoder_input_ids=target).logits
        for value in (0, 7):
            padded = model(
                input_ids=pad(source, (0, 5), value=value),
                attention_mask=pad(torch.ones_like(source), (0, 5)),
                decoder_input_ids=pad(target, (0, 3), value=value),
                decoder_attention_mask=pad(torch.ones_like(target), (0, 3)),
            ).logits
            assert torch.allclose(padded[:, :4], alone, atol=1e-5)


def test_encoder_and_decoder_run_apart() -> None:
    base, source, target = tiny().base_model, ids(2, 6), ids(2, 4, seed=2)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.no_grad():
        encoded = base.encoder(input_ids=source, attention_mask=mask)[0]
        hidden = base.decoder(
            input_ids=target,
            attention_mask=torch.ones_like(target),
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
        )[0]
        whole = base(input_ids=source, attention_mask=mask, decoder_input_ids=target)
    assert torch.allclose(hidden, whole.last_hidden_state, atol=1e-6)
    with pytest.raises(ValueError, match="the decoder needs encoder_hidden_states"):
        base.decoder(input_ids=target)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_with_a_cache_equals_the_one_without(num_beams: int) -> None:
    model, source = tiny(), ids(2, 9)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    written = [
        model.generate(
            input_ids=source,
            attention_mask=mask,
            max_new_tokens=12,
            num_beams=num_beams,
            do_sample=False,
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    ]
    assert torch.equal(written[0], written[1])
    assert written[0].shape[1] > 3
    assert (written[0][:, 0] == 2).all()


def test_greedy_generation_follows_the_logits() -> None:
    model, source = tiny(), ids(1, 9)
    written = model.generate(input_ids=source, max_new_tokens=8, do_sample=False)
    with torch.no_grad():
        logits = model(input_ids=source, decoder_input_ids=written[:, :-1]).logits
    assert torch.equal(logits.argmax(-1), written[:, 1:])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"feed_forward_proj": "gated-gelu"}, "'gated-gelu': expected gelu, gelu_new, relu"),
        ({"hidden_size": 18, "num_attention_heads": 4}, "hidden_size = 18 is not divisible"),
    ],
)
def test_a_shape_that_does_not_exist_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        tiny(**changes)


def test_a_text_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="25 tokens are longer than the model's 24 positions"):
        tiny()(input_ids=ids(1, 25), decoder_input_ids=ids(1, 2))


def test_published_and_our_names_mean_the_same() -> None:
    ours = MegatronT5Config(hidden_size=32, decoder_layers=3, hidden_act="relu")
    theirs = MegatronT5Config(d_model=32, num_decoder_layers=3, feed_forward_proj="relu")
    assert theirs.to_dict() == ours.to_dict()
    assert MegatronT5Config(num_layers=5).decoder_layers == 5
    assert MegatronT5Config(dropout_rate=0.3).attention_probs_dropout_prob == 0.3


def test_it_learns_with_checkpointed_activations() -> None:
    gradients = []
    for is_checkpointed in (False, True):
        model = tiny(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(input_ids=ids(2, 6), labels=ids(2, 5, seed=2)).loss.backward()
        gradients.append(model.model.shared.word_embeddings.weight.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert gradients[0].abs().sum() > 0


def test_labels_without_a_start_token_are_explained() -> None:
    with pytest.raises(ValueError, match="needs decoder_start_token_id"):
        tiny(decoder_start_token_id=None).prepare_decoder_input_ids_from_labels(ids(1, 3))
