"""The Transformer-XL denoiser against the original module; its memory; what it must not see."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache

from pyfsb.config import Family
from pyfsb.errors import CheckpointError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.architectures.transfo_xl import (
    ARCHITECTURE,
    TransfoXLDenoiseForCausalLM,
    TransfoXLDenoiseModel,
)
from pyfsb.models.architectures.transfo_xl_layers import TransfoXLDenoiseConfig, shift_to_keys
from pyfsb.models.key_maps import check_keys
from pyfsb.models.loading import count_parameters
from tests.helpers.reference import ABSOLUTE_TOLERANCE, ReferenceCase, reference_cases

TINY = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 32, "max_memory_length": 8, "initializer_range": 0.5,
    "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
BOTH_ENCODINGS = pytest.mark.parametrize("relative_encoding", [True, False])


def tiny(**changes: Any) -> TransfoXLDenoiseForCausalLM:
    torch.manual_seed(3)
    model = TransfoXLDenoiseForCausalLM(TransfoXLDenoiseConfig(**{**TINY, **changes})).eval()
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.5)
    return model


def ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 60, shape, generator=torch.Generator().manual_seed(seed))


def original(case: ReferenceCase, *, is_legacy: bool) -> TransfoXLDenoiseForCausalLM:
    """The case's model, loaded through the key map with nothing missing and nothing left."""
    config = TransfoXLDenoiseConfig(**case.config["model"], legacy_segment_band=is_legacy)
    model = TransfoXLDenoiseForCausalLM(config).eval()
    state = ARCHITECTURE.key_map.convert(case.weights())
    check_keys(state, model.state_dict(), optional=model.all_tied_weights_keys, source="case")
    model.load_state_dict(state, strict=False)
    return model


@torch.no_grad()
def outputs_of(
    model: TransfoXLDenoiseForCausalLM, given: dict[str, Tensor], *, gives_masks: bool
) -> dict[str, Tensor]:
    """Run the segments one after the other, then a step, as the original did."""
    last_layer: list[Tensor] = []
    hook = model.transformer.layers[-1].register_forward_hook(
        lambda _module, _inputs, output: last_layer.append(output)
    )
    found: dict[str, Tensor] = {}
    memory: list[Tensor] = []
    cache = DynamicCache(config=model.config)
    numbers = itertools.takewhile(lambda n: f"segment{n}.input_ids" in given, itertools.count())
    for name in [*(f"segment{number}" for number in numbers), "step"]:
        output = model(
            given[f"{name}.input_ids"],
            attention_mask=given[f"{name}.attention_mask"] if gives_masks else None,
            position_ids=given[f"{name}.position_ids"],
            past_key_values=cache,
            output_hidden_states=True,
        )
        found[f"{name}.logits"] = output.logits
        states = [*output.hidden_states[:-1], last_layer[-1]]
        memory = [
            torch.cat([old, new], dim=1)[:, -model.config.max_memory_length :]
            for old, new in zip(memory or [state[:, :0] for state in states], states, strict=True)
        ]
        if name != "step":
            found |= {f"{name}.mems.{number}": state for number, state in enumerate(memory)}
    mask = given["padded.attention_mask"]
    found["padded.logits"] = model(
        given["segment0.input_ids"],
        attention_mask=mask if gives_masks else mask[:, 0, -1],
        position_ids=given["segment0.position_ids"],
        use_cache=False,
    ).logits
    hook.remove()
    return found


@reference_cases("transfo_xl_denoise")
@pytest.mark.parametrize("gives_masks", [True, False])
def test_every_output_of_the_original(case: ReferenceCase, gives_masks: bool) -> None:
    found = outputs_of(original(case, is_legacy=True), case.inputs(), gives_masks=gives_masks)
    expected = case.outputs()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        deviation = (found[name] - tensor).abs().max()
        assert deviation <= ABSOLUTE_TOLERANCE, (name, float(deviation))


@reference_cases("transfo_xl_denoise")
def test_ours_sees_the_whole_memory(case: ReferenceCase) -> None:
    given = case.inputs()
    ours = outputs_of(original(case, is_legacy=False), given, gives_masks=False)
    band = case.outputs()
    shape = case.config["model"]
    if shape["max_memory_length"] >= case.config["segments"][0]:
        assert torch.allclose(ours["segment0.logits"], band["segment0.logits"], atol=1e-5)
    assert (ours["segment1.logits"] - band["segment1.logits"]).abs().max() > 0.1


@reference_cases("transfo_xl_denoise")
@pytest.mark.parametrize("is_legacy", [False, True])
def test_only_ours_does_not_depend_on_segments(case: ReferenceCase, is_legacy: bool) -> None:
    model, given = original(case, is_legacy=is_legacy), case.inputs()
    parts = [given[f"segment{number}.input_ids"] for number in range(len(case.config["segments"]))]
    with torch.no_grad():
        whole = model(torch.cat(parts, dim=1), use_cache=False).logits
        cache = DynamicCache(config=model.config)
        pieces = [model(part, past_key_values=cache).logits for part in parts]
    deviation = (torch.cat(pieces, dim=1) - whole).abs().max()
    assert (deviation > 0.1) if is_legacy else (deviation <= ABSOLUTE_TOLERANCE)


@BOTH_ENCODINGS
@pytest.mark.parametrize("lengths", [(1,) * 14, (5, 1, 8), (3, 11), (13, 1)])
def test_memory_equals_one_long_pass(lengths: tuple[int, ...], relative_encoding: bool) -> None:
    model, text = tiny(relative_encoding=relative_encoding), ids(2, 14)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        pieces = [model(part, past_key_values=cache).logits for part in text.split(lengths, dim=1)]
        whole = model(text).logits
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-5)
    assert cache.layers[0].keys.shape[-2] == 8
    assert cache.get_seq_length() == 14


def test_a_token_sees_its_memory_and_no_more() -> None:
    """Of one layer, a logit depends on the last max_memory_length tokens and its own."""
    model, text = tiny(num_hidden_layers=1), ids(1, 14)
    with torch.no_grad():
        expected = model(text).logits[0, -1]
        for place in range(14):
            changed = text.clone()
            changed[0, place] = 3 + (text[0, place] - 2) % 57
            is_seen = not torch.allclose(model(changed).logits[0, -1], expected, atol=1e-6)
            assert is_seen == (place >= 14 - 1 - 8), place


@BOTH_ENCODINGS
@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_future_token_never_changes_an_earlier_logit(
    is_legacy: bool, relative_encoding: bool
) -> None:
    model = tiny(legacy_segment_band=is_legacy, relative_encoding=relative_encoding)
    text, memory = ids(2, 9), ids(2, 6, seed=5)
    with torch.no_grad():
        for place in range(1, 9):
            changed = text.clone()
            changed[:, place:] = ids(2, 9 - place, seed=9)
            logits = []
            for row in (text, changed):
                cache = DynamicCache(config=model.config)
                model(memory, past_key_values=cache)
                logits.append(model(row, past_key_values=cache).logits)
            assert torch.equal(logits[0][:, :place], logits[1][:, :place])
            assert not torch.allclose(logits[0][:, place:], logits[1][:, place:])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_influence(side: str) -> None:
    model, text = tiny(max_memory_length=16), ids(1, 7)
    pad = (4, 0) if side == "left" else (0, 4)
    with torch.no_grad():
        alone = model(text).logits
        for value in (0, 7):
            padded = model(
                functional.pad(text, pad, value=value),
                attention_mask=functional.pad(torch.ones_like(text), pad),
            ).logits
            assert torch.isfinite(padded).all()
            kept = padded[:, 4:] if side == "left" else padded[:, :7]
            assert torch.allclose(kept, alone, atol=1e-5)


def test_the_published_shapes_pass_the_key_map() -> None:
    with torch.device("meta"):
        model = TransfoXLDenoiseForCausalLM(TransfoXLDenoiseConfig())
    assert count_parameters(model) == 1_145_760_000
    state = ARCHITECTURE.key_map.convert(published_shapes())
    tied = model.all_tied_weights_keys
    check_keys(state, model.state_dict(), optional=tied, source="published")
    del state["transformer.r_w_bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: transformer\.r_w_bias"):
        check_keys(state, model.state_dict(), optional=tied, source="published")


def published_shapes() -> dict[str, Tensor]:
    """Names and shapes in the published checkpoint of Randeng-Transformer-1.1B-Denoise."""
    width, prefix = 1600, "transformer"
    shapes: dict[str, tuple[int, ...]] = {
        "word_embeddings.weight": (50048, width),
        f"{prefix}.r_w_bias": (25, 64),
        f"{prefix}.r_r_bias": (25, 64),
        f"{prefix}.position_embeddings.inv_freq": (width // 2,),
    }
    parts = {
        "attention.query_key_value": (3 * width, width),
        "attention.relative": (width, width),
        "attention.dense": (width, width),
        "mlp.dense_h_to_4h": (4 * width, width),
        "mlp.dense_4h_to_h": (width, 4 * width),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    named = {
        f"{prefix}.layers.{number}.{part}": shape
        for number in range(32)
        for part, shape in parts.items()
    }
    for name, shape in {**named, f"{prefix}.final_layernorm": (width,)}.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_it_is_registered_and_survives_a_folder(tmp_path: Path) -> None:
    found = find_architecture("transfo-xl-denoise")
    assert found is ARCHITECTURE
    assert found.classes[Family.GENERATE] is TransfoXLDenoiseForCausalLM
    model, text = tiny(legacy_segment_band=True), ids(2, 9)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.config.legacy_segment_band
    with torch.no_grad():
        assert torch.equal(loaded(text).logits, model(text).logits)
        base = AutoModel.from_pretrained(tmp_path)
        assert isinstance(base, TransfoXLDenoiseModel)
        assert torch.equal(model.lm_logits(base(text)[0]), model(text).logits)
    assert loaded.lm_head.weight is loaded.transformer.word_embeddings.weight


@BOTH_ENCODINGS
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_with_a_memory_equals_the_one_without(
    num_beams: int, relative_encoding: bool
) -> None:
    model, prompt = tiny(relative_encoding=relative_encoding), ids(2, 6)
    mask = torch.tensor([[1] * 6, [0] * 2 + [1] * 4])
    written = [
        model.generate(
            prompt,
            attention_mask=mask,
            max_new_tokens=14,
            num_beams=num_beams,
            do_sample=False,
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    ]
    assert torch.equal(written[0], written[1])
    assert written[0].shape[1] > 14, "longer than the memory"


def test_greedy_generation_follows_the_logits() -> None:
    model, prompt = tiny(), ids(1, 5)
    written = model.generate(prompt, max_new_tokens=12, do_sample=False)
    with torch.no_grad():
        logits = model(written[:, :-1]).logits[:, 4:]
    assert torch.equal(logits.argmax(-1), written[:, 5:])


def test_scores_by_distance_become_scores_by_key() -> None:
    num_rows, num_keys = 3, 7
    by_distance = torch.arange(num_keys - 1, -1, -1.0).expand(1, 1, num_rows, num_keys)
    shifted = shift_to_keys(by_distance)[0, 0]
    for row in range(num_rows):
        own = num_keys - num_rows + row
        assert shifted[row, : own + 1].tolist() == [own - key for key in range(own + 1)]


def test_new_weights_depend_on_depth() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 8, "initializer_range": 0.02}
    model = TransfoXLDenoiseForCausalLM(TransfoXLDenoiseConfig(**{**TINY, **shape}))
    layer = model.transformer.layers[3]
    assert float(layer.attention.query_key_value.weight.detach().std()) == pytest.approx(
        0.02, rel=0.1
    )
    for part in (layer.attention.dense, layer.mlp.dense_4h_to_h):
        assert float(part.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.1)
    assert not model.transformer.r_w_bias.any()
    assert not model.transformer.r_r_bias.any()


def test_the_loss_is_that_of_the_next_tokens() -> None:
    model, text = tiny(), ids(1, 6)
    labels = text.clone()
    labels[0, :3] = -100
    with torch.no_grad():
        output = model(text, labels=labels)
    scores = output.logits[0, 2:5].log_softmax(-1)
    expected = -scores.gather(1, text[0, 3:, None]).mean()
    assert float(output.loss) == pytest.approx(float(expected), rel=1e-5)


def test_it_learns_with_checkpointed_activations() -> None:
    gradients = []
    for is_checkpointed in (False, True):
        model = tiny(embedding_dropout_prob=0.0, hidden_dropout_prob=0.0).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        text = ids(2, 6)
        model(text, labels=text).loss.backward()
        gradients.append(model.transformer.r_r_bias.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_attention_heads": 3}, "hidden_size = 16 is not divisible by num_attention_heads"),
        ({"hidden_size": 15, "num_attention_heads": 3}, "expected an even width"),
        ({"max_memory_length": 0}, "max_memory_length = 0: expected 1 or more"),
    ],
)
def test_a_shape_that_does_not_exist_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        tiny(**changes)


def test_a_text_longer_than_absolute_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="33 tokens are longer than the model's 32 positions"):
        tiny(relative_encoding=False)(ids(1, 33))


def test_published_and_our_names_mean_the_same() -> None:
    published = {
        "num_layers": 3, "max_sequence_length": 40, "output_dropout_prob": 0.2,
        "attention_dropout_prob": 0.1, "checkpoint_activations": True, "checkpoint_num_layers": 1,
        "parallel_output": True,
    }  # fmt: skip
    ours = TransfoXLDenoiseConfig(
        num_hidden_layers=3, max_position_embeddings=40, hidden_dropout_prob=0.2
    )
    assert TransfoXLDenoiseConfig(**published).to_dict() == ours.to_dict()
    assert ours.attention_probs_dropout_prob == 0
