from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from pyfsb.config import Family, LoraSpec
from pyfsb.errors import ConfigError
from pyfsb.models.heads import build_loss
from pyfsb.training.export import plain_names
from pyfsb.training.lora import add_adapters, find_targets, merge_adapters
from tests.helpers.models import MODELS, make_model

SPEC = LoraSpec(rank=4, alpha=8.0)
EXPECTED = {
    "Erlangshen-MegatronBert-1.3B": {
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense",
    },
    "Erlangshen-DeBERTa-v2-97M-Chinese": {
        "attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj",
        "attention.output.dense",
    },
    "Wenzhong-GPT2-110M": {"attn.c_attn", "attn.c_proj"},
}  # fmt: skip


def _family(name: str) -> Family:
    return Family.GENERATE if "GPT2" in name else Family.FILL_MASK


@pytest.mark.parametrize("name", MODELS)
def test_the_attention_is_adapted_and_nothing_else_trains(name: str) -> None:
    model = make_model(name, _family(name))
    found = find_targets(model, ())
    assert {target.partition(".0.")[2] for target in found} == EXPECTED[name]
    add_adapters(model, SPEC, seed=1, trains_head=False)
    trained = [key for key, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * len(found)
    assert all(".lora_" in key for key in trained)


@pytest.mark.parametrize("name", MODELS)
def test_merged_weights_are_those_of_the_adapted_model(name: str) -> None:
    """By the flat forward; trained adapters change the loss, the merge keeps it."""
    torch.manual_seed(0)
    ids = torch.randint(5, 20, (12,))
    batch = {
        "input_ids": ids, "lengths": torch.tensor([5, 7]),
        "target_positions": torch.tensor([1, 8]), "target_ids": ids[:2],
    }  # fmt: skip
    plain = make_model(name, _family(name))
    before = build_loss(plain, _family(name), "flat")(**batch).item()
    model = add_adapters(make_model(name, _family(name)), SPEC, seed=1, trains_head=False)
    loss = build_loss(model, _family(name), "flat").eval()
    assert loss(**batch).item() == pytest.approx(before, abs=1e-6), "their product is zero at first"
    for key, parameter in model.named_parameters():
        if ".lora_B." in key:
            torch.nn.init.normal_(parameter, std=0.2)
    after = loss(**batch).item()
    assert abs(after - before) > 1e-3
    weights = {key: value.detach() for key, value in loss.named_parameters()}
    merged = plain_names(merge_adapters(weights, SPEC, loss))
    assert set(merged) == {key for key, _ in plain.named_parameters()}
    plain.load_state_dict(merged, strict=False)
    assert build_loss(plain, _family(name), "flat")(**batch).item() == pytest.approx(
        after, abs=1e-5
    )


def test_the_first_adapters_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> Any:
        model = make_model(MODELS[0], Family.FILL_MASK)
        torch.manual_seed(123 + seed)
        add_adapters(model, SPEC, seed=seed, trains_head=False)
        return next(p.detach() for key, p in model.named_parameters() if ".lora_A." in key)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_new_head_learns_in_full() -> None:
    model = make_model(MODELS[0], Family.CLASSIFY, labels=("a", "b"))
    add_adapters(model, SPEC, seed=1, trains_head=True)
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight"} <= trained
    assert not any("base_layer" in key for key in trained)


def test_named_targets_and_a_wrong_one() -> None:
    model = make_model(MODELS[0], Family.FILL_MASK)
    spec = LoraSpec(targets=("self.query", "intermediate.dense"))
    add_adapters(model, spec, seed=1, trains_head=False)
    adapted = {
        key.split(".lora_")[0].rsplit(".", 1)[-1] for key, _ in model.named_parameters()
        if ".lora_" in key
    }  # fmt: skip
    assert adapted == {"query", "dense"}
    plain = make_model(MODELS[0], Family.FILL_MASK)
    with pytest.raises(ConfigError, match=r"ends with 'querry'.*'query'.*; there are .*key"):
        find_targets(plain, ("querry",))


def test_an_encoder_decoder_s_attentions_are_all_adapted() -> None:
    fields: dict[str, Any] = {
        "d_model": 16, "d_ff": 16, "d_kv": 8, "num_heads": 2, "num_layers": 1, "vocab_size": 20
    }  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **fields))
    found = find_targets(model, ())
    assert len(found) == 12
    assert not any("relative_attention_bias" in name or "Dense" in name for name in found)
