from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from pyfsb.config import Family
from pyfsb.errors import ConfigError, DataError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.architectures.zhouwenwang import (
    ARCHITECTURE,
    ZhouwenwangForCausalLM,
    ZhouwenwangForMaskedLM,
    ZhouwenwangForSequenceClassification,
    ZhouwenwangForTokenClassification,
)
from pyfsb.models.architectures.zhouwenwang_model import ZhouwenwangConfig, ZhouwenwangModel
from tests.helpers.reference import ReferenceCase, reference_cases
from tests.helpers.rotary_models import (
    check_published_shapes,
    compare,
    draw_ids,
    layer_shapes,
    load_weights,
    randomise,
)

TINY: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def make(kind: Any = ZhouwenwangForMaskedLM, **changes: Any) -> Any:
    torch.manual_seed(2)
    return randomise(kind(ZhouwenwangConfig(**(TINY | changes))))


@reference_cases("roformer")
def test_the_original_computes_the_same(case: ReferenceCase) -> None:
    inputs, expected = case.inputs(), case.outputs()
    ids, mask, mixed = (
        inputs[name] for name in ("input_ids", "attention_mask", "mixed_token_type_ids")
    )
    zeros = torch.zeros_like(ids)
    calls: dict[str, tuple[Tensor, Tensor | None]] = {
        "types0": (zeros, None), "types0_padded": (zeros, mask),
        "mixed": (mixed, None), "mixed_padded": (mixed, mask),
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for version, is_legacy in (("fill", False), ("head", True)):
        config = ZhouwenwangConfig(**case.config["model"], legacy_additive_mask=is_legacy)
        masked, base = ZhouwenwangForMaskedLM(config).eval(), ZhouwenwangModel(config).eval()
        load_weights(masked, case, ARCHITECTURE.key_map, lambda key: None if "/" in key else key)
        load_weights(base, case, ARCHITECTURE.key_map, _base_name)
        for call, (types, padding) in calls.items():
            with torch.no_grad():
                states = base(ids, padding, types)
                output = masked(
                    ids, attention_mask=padding, token_type_ids=types, labels=inputs["labels"],
                    output_hidden_states=True,
                )  # fmt: skip
            name = f"{version}.{call}"
            found |= {
                f"{name}.last_hidden_state": states.last_hidden_state,
                f"{name}.pooler_output": states.pooler_output,
                f"{name}.logits": output.logits,
                f"{name}.loss": output.loss,
            }
            found |= {f"{name}.hidden_states.{i}": x for i, x in enumerate(output.hidden_states)}
    compare(found, expected)
    # Without padding and types both versions are one.
    compare(
        {
            name.replace("fill.", "head.", 1): value
            for name, value in found.items()
            if "fill" in name
        },
        {name: value for name, value in expected.items() if name.startswith("head.types0.")},
    )


def _base_name(key: str) -> str | None:
    key = key.removeprefix("RoFormerModel/")
    return None if key.startswith("cls.") else key.removeprefix("bert.")


@pytest.mark.parametrize(("hidden", "layers", "heads"), [(768, 12, 12), (2048, 24, 8)])
def test_published_shapes_fit(hidden: int, layers: int, heads: int) -> None:
    sizes = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }  # fmt: skip
    shapes = layer_shapes("bert.encoder.layer.", sizes, ("attention.ln", "ln"))
    shapes |= {
        "bert.embeddings.position_ids": [1, 512],
        "bert.embeddings.word_embeddings.weight": [21128, hidden],
        "bert.embeddings.token_type_embeddings.weight": [2, hidden],
        "cls.predictions.bias": [21128], "cls.predictions.decoder.bias": [21128],
        "cls.predictions.decoder.weight": [21128, hidden],
        "cls.predictions.transform.dense.weight": [hidden, hidden],
        "cls.predictions.transform.dense.bias": [hidden],
    }  # fmt: skip
    for name in ("bert.encoder.ln", "cls.predictions.transform.LayerNorm"):
        shapes |= {f"{name}.weight": [hidden], f"{name}.bias": [hidden]}
    config = ZhouwenwangConfig(**sizes)
    check_published_shapes(lambda: ZhouwenwangForMaskedLM(config), shapes, ARCHITECTURE.key_map)


def change(ids: Tensor, place: int) -> Tensor:
    changed = ids.clone()
    changed[0, place] = 5 + (int(ids[0, place]) - 4) % 55
    return changed


@settings(max_examples=20, deadline=None)
@given(types=st.lists(st.integers(0, 1), min_size=2, max_size=14), data=st.data())
def test_a_token_reaches_those_that_may_see_it_alone(types: list[int], data: Any) -> None:
    model, ids = make(), draw_ids(1, len(types))
    place = data.draw(st.integers(0, len(types) - 1))
    with torch.no_grad():
        before, after = (
            model(values, token_type_ids=torch.tensor([types])).logits[0]
            for values in (ids, change(ids, place))
        )
    for other in range(len(types)):
        may_see = sum(types[: place + 1]) <= sum(types[: other + 1])
        assert torch.equal(before[other], after[other]) != may_see


@pytest.mark.parametrize("prefix", [0, 4])
def test_prefixes_are_read_both_ways_and_the_rest_from_left_to_right(prefix: int) -> None:
    model, ids = make(ZhouwenwangForCausalLM), draw_ids(1, 9)
    types = (torch.arange(9) >= prefix).long()[None]
    with torch.no_grad():
        before = model(ids, token_type_ids=types).logits[0]
        for place in range(9):
            after = model(change(ids, place), token_type_ids=types).logits[0]
            first = 0 if place < prefix else place
            assert torch.equal(before[:first], after[:first])
            assert (before[first:] != after[first:]).any(-1).all()


def test_texts_without_types_are_not_betrayed_in_advance() -> None:
    model, ids = make(ZhouwenwangForCausalLM), draw_ids(2, 9)
    with torch.no_grad():
        default, ones = model(ids).logits, model(ids, token_type_ids=torch.ones_like(ids)).logits
        masked = make()(ids).logits
        zeros = make()(ids, token_type_ids=torch.zeros_like(ids)).logits
    torch.testing.assert_close(default, ones, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(masked, zeros, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(default, masked, atol=1e-2)


def test_the_legacy_mask_lets_the_future_and_padding_in() -> None:
    ids, types = draw_ids(1, 8), torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])
    for is_legacy in (False, True):
        model = make(legacy_additive_mask=is_legacy)
        with torch.no_grad():
            before, after = (
                model(values, token_type_ids=types, attention_mask=mask).logits[0]
                for values in (ids, change(ids, 7))
            )
        assert bool((before[:6] != after[:6]).any()) == is_legacy
    causal = make(ZhouwenwangForCausalLM, legacy_additive_mask=True)
    with torch.no_grad():
        default, ones = causal(ids), causal(ids, token_type_ids=torch.ones_like(ids))
    assert torch.equal(default.logits, ones.logits)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_influence(side: str) -> None:
    model, ids = make(), draw_ids(2, 9)
    types = torch.tensor([[0] * 9, [0] * 4 + [1] * 5])
    pad = (6, 0) if side == "left" else (0, 6)
    mask = functional.pad(torch.ones_like(ids), pad)
    rows = slice(6, None) if side == "left" else slice(0, 9)
    with torch.no_grad():
        alone = model(ids, token_type_ids=types).logits
        for pad_id, pad_type in ((0, 0), (9, 0), (9, 1)):
            padded = model(
                functional.pad(ids, pad, value=pad_id), attention_mask=mask,
                token_type_ids=functional.pad(types, pad, value=pad_type),
            ).logits  # fmt: skip
            torch.testing.assert_close(padded[:, rows], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt_type", [0, 1])
def test_cached_steps_equal_a_full_pass(prompt_type: int) -> None:
    model, ids = make(ZhouwenwangForCausalLM), draw_ids(2, 12)
    types = torch.ones_like(ids)
    types[:, :5] = prompt_type
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    with torch.no_grad():
        expected = model(ids, mask, types).logits
        output = model(ids[:, :5], mask[:, :5], types[:, :5], use_cache=True)
        found = [output.logits]
        for start, stop in ((5, 6), (6, 7), (7, 10), (10, 12)):
            output = model(
                ids[:, start:stop], mask[:, :stop],
                types[:, start:stop] if start % 2 else None,
                past_key_values=output.past_key_values, use_cache=True,
            )  # fmt: skip
            found.append(output.logits)
    difference = (torch.cat(found, 1) - expected)[mask.bool()].abs().max()
    assert float(difference) < 1e-5


def test_a_prefix_cannot_grow_behind_the_cache() -> None:
    model, ids = make(ZhouwenwangForCausalLM), draw_ids(1, 6)
    output = model(ids, token_type_ids=torch.zeros_like(ids), use_cache=True)
    with pytest.raises(DataError, match="token type 0 behind cached tokens"):
        model(
            ids[:, :1], token_type_ids=torch.zeros(1, 1, dtype=torch.long),
            past_key_values=output.past_key_values,
        )  # fmt: skip


def greedy(model: Any, ids: Tensor, types: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        with torch.no_grad():
            last = model(ids, token_type_ids=types).logits[:, -1]
        last[:, 2] = -torch.inf
        ids = torch.cat([ids, last.argmax(-1, keepdim=True)], dim=1)
        types = torch.cat([types, torch.ones_like(types[:, :1])], dim=1)
    return ids


@pytest.mark.parametrize("prompt_type", [0, 1, None])
@pytest.mark.parametrize("uses_cache", [True, False])
def test_generate_continues_with_type_1(prompt_type: int | None, uses_cache: bool) -> None:
    model = make(
        ZhouwenwangForCausalLM,
        **({} if prompt_type is None else {"prompt_token_type": prompt_type}),
    )
    ids = draw_ids(2, 7)
    types = torch.full_like(ids, 1 if prompt_type is None else prompt_type)
    options = {
        "max_new_tokens": 8,
        "min_new_tokens": 8,
        "do_sample": False,
        "use_cache": uses_cache,
    }
    expected = greedy(model, ids, types, 8)
    assert torch.equal(model.generate(ids, **options), expected)
    assert torch.equal(model.generate(input_ids=ids, token_type_ids=types, **options), expected)
    other = make(ZhouwenwangForCausalLM, prompt_token_type=1 - int(types[0, 0]))
    assert torch.equal(other.generate(ids, token_type_ids=types, **options), expected)
    assert not torch.equal(other.generate(ids, **options), expected)


def test_the_legacy_mask_writes_without_a_cache() -> None:
    model, ids = make(ZhouwenwangForCausalLM, legacy_additive_mask=True), draw_ids(2, 7)
    expected = greedy(model, ids, torch.ones_like(ids), 5)
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), expected)
    with pytest.raises(ConfigError, match="expected use_cache = false"):
        model.generate(ids, use_cache=True, **options)


@pytest.mark.parametrize("prompt_type", [0, 1])
def test_beams_and_padded_prompts_are_the_same_with_and_without_cache(prompt_type: int) -> None:
    model, ids = make(ZhouwenwangForCausalLM, prompt_token_type=prompt_type), draw_ids(2, 7)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "num_beams": 3, "attention_mask": mask}
    cached, uncached = (
        model.generate(ids, use_cache=uses, do_sample=False, **options) for uses in (True, False)
    )
    assert torch.equal(cached, uncached)
    alone = model.generate(
        ids[1:, 3:], max_new_tokens=8, min_new_tokens=8, num_beams=3, do_sample=False
    )
    assert torch.equal(cached[1, 7:], alone[0, 4:])


@pytest.mark.parametrize(
    "kind", [ZhouwenwangForSequenceClassification, ZhouwenwangForTokenClassification]
)
def test_heads_that_understand_take_no_types(kind: Any) -> None:
    model, ids = make(kind, num_labels=3), draw_ids(2, 9)
    types = (torch.arange(9) > 4).long().expand(2, -1)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids, token_type_ids=types).logits)
    assert model(ids).logits.shape[-1] == 3


@pytest.mark.parametrize("family", ARCHITECTURE.classes)
def test_saved_models_are_equal(family: Family, tmp_path: Path) -> None:
    kind = ARCHITECTURE.classes[family]
    model, ids = make(kind), draw_ids(2, 12)
    model.save_pretrained(tmp_path)
    again, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(model(ids)[0], again.eval()(ids)[0])


def test_the_auto_classes_know_it(tmp_path: Path) -> None:
    assert find_architecture("zhouwenwang") is ARCHITECTURE
    config = AutoConfig.for_model("zhouwenwang", **TINY, legacy_additive_mask=True)
    masked = AutoModelForMaskedLM.from_config(config)
    masked.save_pretrained(tmp_path)
    causal = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(causal, ZhouwenwangForCausalLM)
    assert causal.config.legacy_additive_mask
    assert causal.cls.predictions.decoder.weight is causal.get_input_embeddings().weight
    for name, tensor in masked.state_dict().items():
        assert torch.equal(tensor, causal.state_dict()[name]), name


def test_a_new_head_on_a_saved_base_starts_at_zero(tmp_path: Path) -> None:
    make(ZhouwenwangModel).save_pretrained(tmp_path)
    masked = ZhouwenwangForMaskedLM.from_pretrained(tmp_path)
    assert float(masked.cls.predictions.bias.detach().abs().sum()) == 0
    assert masked.cls.predictions.decoder.bias is masked.cls.predictions.bias


def test_the_vocabulary_can_grow() -> None:
    model = make(ZhouwenwangForCausalLM)
    model.resize_token_embeddings(70)
    assert model(torch.tensor([[69, 5]])).logits.shape == (1, 2, 70)
    assert model.cls.predictions.bias.shape == (70,)


def test_checkpointed_activations_change_nothing() -> None:
    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model, ids = make(ZhouwenwangForCausalLM, **plain).train(), draw_ids(2, 20)
    found = []
    for checkpoints in (False, True):
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_with_padding(dtype: torch.dtype) -> None:
    model, ids = make(), draw_ids(2, 30)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    with torch.autocast("cpu", dtype=dtype):
        loss = model(ids, attention_mask=mask, labels=ids).loss
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    with torch.no_grad():
        assert torch.isfinite(make().to(dtype)(ids, attention_mask=mask).logits).all()


def test_labels_are_predicted_by_the_token_before() -> None:
    model, ids = make(ZhouwenwangForCausalLM), draw_ids(2, 6)
    labels = ids.clone()
    labels[:, :3] = -100
    output = model(ids, labels=labels)
    expected = functional.cross_entropy(output.logits[:, 2:-1].flatten(0, 1), ids[:, 3:].flatten())
    assert torch.allclose(output.loss, expected)
    kept = model(ids, logits_to_keep=2).logits
    torch.testing.assert_close(kept, output.logits[:, -2:], rtol=1e-5, atol=1e-5)


def test_heads_of_odd_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected heads of equal and even width"):
        make(num_attention_heads=5)
