from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models.architectures import find_architecture
from pyfsb.models.architectures.longformer import (
    ARCHITECTURE,
    RopeLongformerForMaskedLM,
    RopeLongformerForQuestionAnswering,
    RopeLongformerForSequenceClassification,
    RopeLongformerForTokenClassification,
)
from pyfsb.models.architectures.longformer_attention import attend_in_window
from pyfsb.models.architectures.longformer_model import RopeLongformerConfig, RopeLongformerModel
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
    "intermediate_size": 48, "attention_window": [4, 6], "eos_token_id": 3,
}  # fmt: skip


def make(kind: Any = RopeLongformerForMaskedLM, **changes: Any) -> Any:
    torch.manual_seed(2)
    return randomise(kind(RopeLongformerConfig(**(TINY | changes))))


@reference_cases("longformer")
def test_the_original_computes_the_same(case: ReferenceCase) -> None:
    inputs, expected = case.inputs(), case.outputs()
    width = inputs["input_ids"].shape[1]
    # Theirs keep the padding to whole windows.
    expected = {
        name: value[:, :width] if ".hidden_states." in name else value
        for name, value in expected.items()
    }
    found: dict[str, Tensor] = {}
    for call in ("sparse", "sparse_global", "full"):
        config = RopeLongformerConfig(**case.config["model"], use_sparse_attention=call != "full")
        masked, base = (
            kind(config).eval() for kind in (RopeLongformerForMaskedLM, RopeLongformerModel)
        )
        load_weights(masked, case, ARCHITECTURE.key_map, _masked_name)
        load_weights(base, case, ARCHITECTURE.key_map, lambda key: None if "/" in key else key)
        arguments = {
            "attention_mask": inputs["attention_mask"], "token_type_ids": inputs["token_type_ids"],
            "global_attention_mask": inputs["global_attention_mask"] if "global" in call else None,
        }  # fmt: skip
        with torch.no_grad():
            states = base(inputs["input_ids"], **arguments)
            output = masked(
                inputs["input_ids"], labels=inputs["labels"], output_hidden_states=True, **arguments
            )
        found |= {
            f"{call}.last_hidden_state": states.last_hidden_state,
            f"{call}.pooler_output": states.pooler_output,
            f"{call}.logits": output.logits,
            f"{call}.loss": output.loss,
        }
        found |= {f"{call}.hidden_states.{i}": x for i, x in enumerate(output.hidden_states)}
    compare(found, expected)


def _masked_name(key: str) -> str | None:
    if "/" in key:
        return key.partition("/")[2]
    return None if key.startswith("pooler") else f"longformer.{key}"


@pytest.mark.parametrize(("hidden", "layers", "heads"), [(768, 12, 12), (1024, 24, 16)])
def test_published_shapes_fit(hidden: int, layers: int, heads: int) -> None:
    sizes = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }  # fmt: skip
    shapes = layer_shapes(
        "longformer.encoder.layer.", sizes, ("attention.output.LayerNorm", "output.LayerNorm")
    )
    for name, rows in (("word", 21128), ("position", 4096), ("token_type", 2)):
        shapes[f"longformer.embeddings.{name}_embeddings.weight"] = [rows, hidden]
    for name in ("longformer.embeddings.LayerNorm", "lm_head.layer_norm"):
        shapes |= {f"{name}.weight": [hidden], f"{name}.bias": [hidden]}
    shapes |= {
        "lm_head.dense.weight": [hidden, hidden], "lm_head.dense.bias": [hidden],
        "lm_head.decoder.weight": [21128, hidden], "lm_head.decoder.bias": [21128],
        "lm_head.bias": [21128],
    }  # fmt: skip
    config = RopeLongformerConfig(**sizes)
    check_published_shapes(lambda: RopeLongformerForMaskedLM(config), shapes, ARCHITECTURE.key_map)


def brute_force(states: list[Tensor], reach: int, is_real: Tensor, is_global: Tensor) -> Tensor:
    length = states[0].shape[-2]
    places = torch.arange(length)
    near = (places[:, None] - places).abs() <= reach
    seen = near | is_global[:, None, :] | is_global[:, :, None]
    seen = (seen & is_real[:, None, :]) | torch.eye(length, dtype=torch.bool)
    attended = functional.scaled_dot_product_attention(*states, seen[:, None])
    return attended.masked_fill(~is_real[:, None, :, None], 0.0)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 150), reach=st.integers(1, 90), num_global=st.integers(0, 4),
    shortest=st.integers(1, 150), seed=st.integers(0, 99),
)  # fmt: skip
def test_blocks_equal_a_mask_over_all_pairs(
    length: int, reach: int, num_global: int, shortest: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(3, 2, length, 4, generator=generator, requires_grad=True) for _ in "qkv"]
    lengths = torch.tensor([length, min(shortest, length), max(1, length // 2)])
    is_real = torch.arange(length) < lengths[:, None]
    is_global = torch.zeros_like(is_real)
    for row, count in enumerate((num_global, num_global // 2, 1)):
        is_global[row, torch.randperm(length, generator=generator)[:count]] = True
    is_global &= is_real
    expected = brute_force(states, reach, is_real, is_global)
    found = attend_in_window(*states, reach=reach, is_real_BT=is_real, is_global_BT=is_global)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(found.shape, generator=generator)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), states),
        torch.autograd.grad((expected * weights).sum(), states),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class Largest(TorchDispatchMode):
    """Watches the elements of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.untyped_storage().nbytes())
        return result


def test_memory_grows_with_tokens_not_with_their_square() -> None:
    def largest(length: int) -> int:
        states = [torch.zeros(1, 2, length, 8) for _ in "qkv"]
        is_real = torch.ones(1, length, dtype=torch.bool)
        is_global = torch.zeros_like(is_real)
        is_global[:, 0] = True
        with Largest() as watch:
            attend_in_window(*states, reach=16, is_real_BT=is_real, is_global_BT=is_global)
        return watch.largest

    assert largest(4096) <= 4.1 * largest(1024)
    assert largest(4096) < 4096 * 4096 / 8


@settings(max_examples=10, deadline=None)
@given(place=st.integers(0, 39), data=st.data())
def test_a_token_out_of_reach_has_no_influence(place: int, data: Any) -> None:
    model, ids = make(), draw_ids(1, 40)
    changed = ids.clone()
    changed[0, place] = 5 + (int(ids[0, place]) - 4) % 55
    with torch.no_grad():
        before, after = (model(values).logits[0] for values in (ids, changed))
    # Windows of 4 and 6: a token is seen 2 + 3 places away behind two layers.
    for other in range(40):
        assert torch.equal(before[other], after[other]) == (abs(other - place) > 5)


def test_global_tokens_and_full_mode_reach_everywhere() -> None:
    ids, is_global = draw_ids(1, 40), torch.zeros(1, 40, dtype=torch.long)
    is_global[0, 7] = 1
    changed = ids.clone()
    changed[0, 39] = 5 + (int(ids[0, 39]) - 4) % 55

    def is_seen(model: Any, mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            before, after = (
                model(values, global_attention_mask=mask).logits[0] for values in (ids, changed)
            )
        return (before != after).any(-1)

    assert is_seen(make(use_sparse_attention=False), None).all()
    assert is_seen(make(), is_global).all()  # over the global token, in two layers
    seen_once = is_seen(make(num_hidden_layers=1, attention_window=4), is_global)
    assert seen_once.nonzero().flatten().tolist() == [7, 37, 38, 39]


@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_influence(is_sparse: bool, side: str) -> None:
    model, ids = make(use_sparse_attention=is_sparse), draw_ids(2, 13)
    pad = (9, 0) if side == "left" else (0, 9)
    real = functional.pad(torch.ones_like(ids), pad)
    with torch.no_grad():
        alone = model(ids).logits
        padded = model(functional.pad(ids, pad, value=0), attention_mask=real).logits
        other = model(functional.pad(ids, pad, value=9), attention_mask=real).logits
    rows = slice(9, None) if side == "left" else slice(0, 13)
    torch.testing.assert_close(padded[:, rows], alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(padded[:, rows], other[:, rows])


def test_heads_make_their_tokens_global() -> None:
    ids = draw_ids(2, 40)
    ids[0, 9] = 3  # ends the first row's question; the second has none
    classifier = make(RopeLongformerForSequenceClassification)
    answerer = make(RopeLongformerForQuestionAnswering)
    tagger = make(RopeLongformerForTokenClassification)
    is_first = torch.zeros(2, 40, dtype=torch.long)
    is_first[:, 0] = 1
    is_question = is_first.clone()
    is_question[0, :10] = 1
    with torch.no_grad():
        for model, mask in ((classifier, is_first), (answerer, is_question), (tagger, None)):
            default = model(ids)
            given_ = model(ids, global_attention_mask=mask)
            none = model(ids, global_attention_mask=torch.zeros_like(ids))
            name = "start_logits" if model is answerer else "logits"
            assert torch.equal(default[name], given_[name])
            assert torch.equal(default[name], none[name]) == (model is tagger)
    assert classifier(ids).logits.shape == (2, 2)
    assert tagger(ids).logits.shape == (2, 40, 2)
    assert answerer(ids).end_logits.shape == (2, 40)


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
    assert find_architecture("rope-longformer") is ARCHITECTURE
    config = AutoConfig.for_model("rope-longformer", **TINY)
    masked = AutoModelForMaskedLM.from_config(config)
    assert isinstance(masked, RopeLongformerForMaskedLM)
    assert float(masked.lm_head.bias.detach().abs().sum()) == 0
    assert masked.lm_head.decoder.weight is masked.get_input_embeddings().weight
    masked.save_pretrained(tmp_path)
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(
        found.longformer.embeddings.word_embeddings.weight, masked.get_input_embeddings().weight
    )


def test_a_new_head_on_a_saved_base_starts_at_zero(tmp_path: Path) -> None:
    make(RopeLongformerModel).save_pretrained(tmp_path)
    masked = RopeLongformerForMaskedLM.from_pretrained(tmp_path)
    assert float(masked.lm_head.bias.detach().abs().sum()) == 0
    assert masked.lm_head.decoder.bias is masked.lm_head.bias


def test_checkpointed_activations_change_nothing() -> None:
    model, ids = (
        make(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train(),
        draw_ids(2, 20),
    )
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
    model, ids = make(), draw_ids(2, 70)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    with torch.autocast("cpu", dtype=dtype):
        loss = model(ids, attention_mask=mask, labels=ids).loss
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    with torch.no_grad():
        assert torch.isfinite(make().to(dtype)(ids, attention_mask=mask).logits).all()


def test_labels_give_the_mean_loss() -> None:
    ids, labels = draw_ids(3, 8), torch.tensor([1, 0, 1])
    model = make(RopeLongformerForSequenceClassification)
    output = model(ids, labels=labels)
    assert torch.allclose(output.loss, functional.cross_entropy(output.logits, labels))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_window": 5}, "attention_window = 5: expected an even number"),
        ({"attention_window": [4, 0]}, "attention_window = 0: expected an even number"),
        ({"attention_window": [4]}, "has 1 windows; expected one number, or one for each of the 2"),
    ],
)
def test_windows_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RopeLongformerConfig(**(TINY | changes))


@pytest.mark.parametrize("changes", [{"num_attention_heads": 5}, {"hidden_size": 36}])
def test_heads_of_odd_width_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected heads of equal and even width"):
        make(**changes)


def test_one_window_stands_for_all_layers() -> None:
    ids = draw_ids(1, 30)
    with torch.no_grad():
        one, both = make(attention_window=4)(ids), make(attention_window=[4, 4])(ids)
    assert torch.equal(one.logits, both.logits)
