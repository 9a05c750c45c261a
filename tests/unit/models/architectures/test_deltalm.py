"""DeltaLM against the original module, and what makes it differ from BART."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSeq2SeqLM

from pyfsb.config import Family
from pyfsb.models.architectures import find_architecture
from pyfsb.models.architectures.deltalm import (
    ARCHITECTURE,
    DeltaLMConfig,
    DeltaLMForConditionalGeneration,
    DeltaLMModel,
)
from pyfsb.models.key_maps import check_keys
from pyfsb.models.loading import count_parameters
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)

TINY = {
    "vocab_size": 60, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "max_position_embeddings": 24, "init_std": 0.5,
    "forced_eos_token_id": None,
}  # fmt: skip


def tiny(**changes: Any) -> DeltaLMForConditionalGeneration:
    torch.manual_seed(3)
    return DeltaLMForConditionalGeneration(DeltaLMConfig(**{**TINY, **changes})).eval()


def ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 60, shape, generator=torch.Generator().manual_seed(seed))


def original(case: ReferenceCase) -> DeltaLMForConditionalGeneration:
    """The case's model, loaded through the key map with nothing missing and nothing left."""
    model = DeltaLMForConditionalGeneration(DeltaLMConfig(**case.config["model"])).eval()
    state = ARCHITECTURE.key_map.convert(case.weights())
    check_keys(state, model.state_dict(), optional=model.all_tied_weights_keys, source="case")
    model.load_state_dict(state, strict=False)
    return model


@torch.no_grad()
def outputs_of(case: ReferenceCase) -> dict[str, Tensor]:
    model, given = original(case), case.inputs()
    source = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    labelled = model(**source, labels=given["labels"], output_hidden_states=True)
    explicit = model(
        **source,
        decoder_input_ids=given["decoder_input_ids"],
        decoder_attention_mask=given["decoder_attention_mask"],
    )
    before = model(**source, decoder_input_ids=given["decoder_input_ids"], use_cache=True)
    step = model(
        **source,
        decoder_input_ids=given["next_decoder_ids"],
        past_key_values=before.past_key_values,
    )
    states = labelled.decoder_hidden_states
    return {
        "labels.logits": labelled.logits,
        "labels.loss": labelled.loss,
        "encoder_last_hidden_state": labelled.encoder_last_hidden_state,
        "explicit.logits": explicit.logits,
        "cached_step_logits": step.logits,
        **{f"labels.decoder_hidden_states.{number}": state for number, state in enumerate(states)},
    }


@reference_cases("deltalm")
def test_every_output_of_the_original(case: ReferenceCase) -> None:
    found, expected = outputs_of(case), case.outputs()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        if name.endswith("loss"):
            assert float(found[name]) == pytest.approx(float(tensor), rel=RELATIVE_LOSS_TOLERANCE)
        else:
            deviation = (found[name] - tensor).abs().max()
            assert deviation <= ABSOLUTE_TOLERANCE, (name, float(deviation))


def test_the_full_size_has_the_parameters_of_its_name() -> None:
    with torch.device("meta"):
        model = DeltaLMForConditionalGeneration(DeltaLMConfig())
    assert count_parameters(model) == pytest.approx(362e6, rel=0.01)


def test_it_is_registered_and_survives_a_folder(tmp_path: Path) -> None:
    found = find_architecture("deltalm")
    assert found is ARCHITECTURE
    assert found.classes[Family.REWRITE] is DeltaLMForConditionalGeneration
    model = tiny(encoder_normalize_before=True)
    model.final_logits_bias.normal_()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    source, target = ids(2, 7), ids(2, 5, seed=2)
    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits
        assert torch.equal(loaded(input_ids=source, decoder_input_ids=target).logits, expected)
        base = AutoModel.from_pretrained(tmp_path)
        assert isinstance(base, DeltaLMModel)
        hidden = base(input_ids=source, decoder_input_ids=target)[0]
    assert torch.equal(model.lm_logits(hidden), expected)


def test_a_last_norm_of_the_encoder_is_optional() -> None:
    model, source = tiny(encoder_normalize_before=True), ids(2, 7)
    with torch.no_grad():
        output = model.get_encoder()(input_ids=source, output_hidden_states=True)
        model.model.encoder.layer_norm.weight.zero_()
        assert not model.get_encoder()(input_ids=source)[0].any()
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert tiny().model.encoder.layer_norm is None


def test_a_future_token_never_changes_an_earlier_logit() -> None:
    model, source, target = tiny(), ids(1, 8), ids(1, 7, seed=2)
    changed = target.clone()
    changed[0, 4:] = ids(1, 3, seed=9)
    with torch.no_grad():
        first = model(input_ids=source, decoder_input_ids=target).logits
        second = model(input_ids=source, decoder_input_ids=changed).logits
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4:], second[:, 4:])


def test_the_second_feed_forward_part_counts() -> None:
    model, source, target = tiny(), ids(1, 8), ids(1, 7, seed=2)
    with torch.no_grad():
        before = model(input_ids=source, decoder_input_ids=target).logits
        model.model.decoder.layers[0].fc4.weight.zero_()
        after = model(input_ids=source, decoder_input_ids=target).logits
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_with_a_cache_equals_the_one_without(num_beams: int) -> None:
    model, source = tiny(), ids(2, 9)
    written = [
        model.generate(
            input_ids=source, max_new_tokens=12, num_beams=num_beams, do_sample=False,
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    ]  # fmt: skip
    assert torch.equal(written[0], written[1])
    assert written[0].shape[1] > 3
