from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    ChineseCLIPTextModel,
    CLIPTextModelWithProjection,
)

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.models import unpadded
from pyfsb.models.heads import build_loss, pad_flat
from pyfsb.models.unpadded import attention
from pyfsb.models.unpadded.documents import Documents

VOCABULARY, LENGTHS, DECODER_LENGTHS = 60, [5, 17, 1, 40, 17, 2], [4, 9, 1, 3, 9, 12]

BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
DEBERTA = BERT | {
    "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
    "pos_att_type": "c2p|p2c", "position_biased_input": False, "type_vocab_size": 0,
    "share_att_key": True, "conv_kernel_size": 3, "conv_act": "gelu", "max_relative_positions": -1,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
}  # fmt: skip
BART = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip

MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", BERT),
    "megatron-bert": ("megatron-bert", BERT),
    "deberta-v2": ("deberta-v2", DEBERTA),
    "deberta-v2 as published in English": (
        "deberta-v2",
        DEBERTA | {"share_att_key": False, "conv_kernel_size": 0, "type_vocab_size": 2,
                   "position_biased_input": True, "norm_rel_ebd": "none"},
    ),
    "deberta-v2 without buckets": ("deberta-v2", DEBERTA | {"position_buckets": -1}),
    "deberta-v2, short table": (
        "deberta-v2", DEBERTA | {"position_buckets": -1, "max_relative_positions": 8},
    ),
    "deberta-v2, content to position": ("deberta-v2", DEBERTA | {"pos_att_type": ["c2p"]}),
    "deberta-v2 without positions": (
        "deberta-v2", DEBERTA | {"pos_att_type": [], "relative_attention": False},
    ),
    "deberta-v2, later head": ("deberta-v2", DEBERTA | {"legacy": False, "hidden_act": "relu"}),
    "roberta": ("roberta", BERT | {"type_vocab_size": 1, "pad_token_id": 1}),
    "rope-longformer": ("rope-longformer", BERT | {"attention_window": [4, 16]}),
    "rope-longformer, full": ("rope-longformer", BERT | {"use_sparse_attention": False}),
    "zhouwenwang": ("zhouwenwang", BERT),
}  # fmt: skip
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2),
    "gpt2, scaled by layer": ("gpt2", GPT2 | {"scale_attn_by_inverse_layer_idx": True}),
    "llama": ("llama", BERT | {"num_key_value_heads": 2, "attention_dropout": 0.1}),
    "zhouwenwang, writing": ("zhouwenwang", BERT),
}
PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", T5),
    "t5, gated and untied": (
        "t5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": ("mt5", T5),
    "bart": ("bart", BART | {"scale_embedding": True}),
    "pegasus": ("pegasus", BART | {"scale_embedding": True}),
}  # fmt: skip
SINGLES = MASKED | CAUSAL
EVERY = SINGLES | PAIRS


def make_model(name: str, **changes: Any) -> Any:
    """Return a tiny model with random weights in evaluation mode, its biases not zero."""
    kind, config = EVERY[name]
    classes = {
        **dict.fromkeys(MASKED, AutoModelForMaskedLM),
        **dict.fromkeys(CAUSAL, AutoModelForCausalLM),
        **dict.fromkeys(PAIRS, AutoModelForSeq2SeqLM),
    }
    torch.manual_seed(3)
    built = AutoConfig.for_model(kind, **config, **changes)
    model = classes[name].from_config(built, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def draw_ids(count: int, seed: int = 0) -> Tensor:
    return torch.randint(5, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))


def single_batch() -> dict[str, Tensor]:
    ids, positions = draw_ids(sum(LENGTHS)), torch.arange(0, sum(LENGTHS), 3)
    return {
        "input_ids": ids, "lengths": torch.tensor(LENGTHS), "target_positions": positions,
        "target_ids": draw_ids(positions.numel(), 1),
    }  # fmt: skip


def pair_batch() -> dict[str, Tensor]:
    total = sum(DECODER_LENGTHS)
    return {
        "input_ids": draw_ids(sum(LENGTHS)), "lengths": torch.tensor(LENGTHS),
        "decoder_ids": draw_ids(total, 2), "decoder_lengths": torch.tensor(DECODER_LENGTHS),
        "target_positions": torch.arange(total), "target_ids": draw_ids(total, 3),
    }  # fmt: skip


def batch_of(name: str) -> dict[str, Tensor]:
    return pair_batch() if name in PAIRS else single_batch()


def reference_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the loss of Hugging Face's own padded forward pass, with logits everywhere."""
    ids, mask = pad_flat(batch["input_ids"], batch["lengths"], model.config.pad_token_id)
    if "decoder_ids" not in batch:
        logits = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    else:
        decoder_ids, decoder_mask = pad_flat(batch["decoder_ids"], batch["decoder_lengths"], 0)
        logits = model(
            input_ids=ids, attention_mask=mask,
            decoder_input_ids=decoder_ids, decoder_attention_mask=decoder_mask,
        ).logits[decoder_mask.bool()]  # fmt: skip
    return functional.cross_entropy(
        logits[batch["target_positions"]], batch["target_ids"], reduction="sum"
    )


def loss_and_gradients(module: Any, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    module.zero_grad()
    loss.backward()
    found = {
        key: value.grad.clone()
        for key, value in module.named_parameters()
        if value.grad is not None
    }
    return loss.detach(), found


def assert_equal_training(
    first: tuple[Tensor, dict[str, Tensor]], second: tuple[Tensor, dict[str, Tensor]]
) -> None:
    torch.testing.assert_close(first[0], second[0], rtol=1e-5, atol=1e-5)
    assert first[1].keys() == second[1].keys()
    for key, gradient in second[1].items():
        scale = max(1.0, float(gradient.abs().max()))
        difference = float((first[1][key] - gradient).abs().max()) / scale
        assert difference < 1e-5, f"{key}: {difference}"


@pytest.mark.parametrize("layout", ["flat", "packed", "padded"])
@pytest.mark.parametrize("name", EVERY)
def test_loss_and_gradients_equal_the_padded_reference(name: str, layout: Any) -> None:
    if layout == "packed" and name in PAIRS:
        with pytest.raises(ConfigError, match="has two lengths to fill"):
            build_loss(make_model(name), Family.GENERATE, layout, micro_tokens=300)
        return
    model, batch = make_model(name), batch_of(name)
    expected = loss_and_gradients(model, reference_loss(model, batch))
    loss = build_loss(model, Family.GENERATE, layout, micro_tokens=300)
    assert_equal_training(loss_and_gradients(model, loss(**batch)), expected)


@pytest.mark.parametrize("name", EVERY)
def test_checkpointed_activations_change_nothing_with_dropout(name: str) -> None:
    model, batch = make_model(name).train(), batch_of(name)
    found = []
    for checkpoints in (False, True):
        loss = build_loss(model, Family.GENERATE, "flat", checkpoints_activations=checkpoints)
        torch.manual_seed(11)
        found.append(loss_and_gradients(model, loss(**batch)))
    assert_equal_training(found[1], found[0])
    torch.manual_seed(12)
    other = build_loss(model, Family.GENERATE, "flat")(**batch)
    assert float(other.detach()) != float(found[0][0])


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "t5", "rope-longformer"])
def test_training_is_equal_the_way_of_accelerators(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make_model(name), batch_of(name)
    expected = loss_and_gradients(model, reference_loss(model, batch))
    monkeypatch.setattr(attention, "calls_by_length", lambda device: False)
    loss = build_loss(model, Family.GENERATE, "flat")
    with torch.inference_mode():
        loss(**batch)  # what is kept from here must serve training too
    assert_equal_training(loss_and_gradients(model, loss(**batch)), expected)


@pytest.mark.parametrize("name", SINGLES)
def test_chosen_states_are_those_of_all(name: str) -> None:
    model, ids, lengths = make_model(name), draw_ids(sum(LENGTHS)), torch.tensor(LENGTHS)
    positions = torch.tensor([70, 3, 3, 41, 0])
    with torch.no_grad():
        every = unpadded.encode(model, ids, lengths)
        chosen = unpadded.encode(model, ids, lengths, positions_P=positions)
    torch.testing.assert_close(chosen, every[positions], rtol=1e-5, atol=1e-5)


def split_hidden(model: Any, ids: Tensor, lengths: list[int]) -> list[Tensor]:
    with torch.no_grad():
        hidden = unpadded.encode(model, ids, torch.tensor(lengths))
    return list(hidden.split(lengths))


ROWS = st.lists(st.integers(1, 24), min_size=2, max_size=6)


@pytest.mark.parametrize(
    "name",
    ["bert", "roberta", "megatron-bert", "deberta-v2", "rope-longformer", "gpt2", "llama"],
)
@settings(max_examples=8, deadline=None)
@given(lengths=ROWS, data=st.data())
def test_documents_never_see_each_other(name: str, lengths: list[int], data: Any) -> None:
    model = make_model(name)
    ids = draw_ids(sum(lengths))
    row = data.draw(st.integers(0, len(lengths) - 1))
    place = sum(lengths[:row]) + data.draw(st.integers(0, lengths[row] - 1))
    changed = ids.clone()
    changed[place] = 5 + (int(ids[place]) - 4) % (VOCABULARY - 5)
    before, after = (split_hidden(model, values, lengths) for values in (ids, changed))
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(one, other) == (number != row)


@settings(max_examples=6, deadline=None)
@given(lengths=ROWS, data=st.data())
@pytest.mark.parametrize("name", ["t5", "bart", "pegasus"])
def test_pairs_never_see_each_other(name: str, lengths: list[int], data: Any) -> None:
    model = make_model(name)
    decoder_lengths = [data.draw(st.integers(1, 9)) for _ in lengths]
    row = data.draw(st.integers(0, len(lengths) - 1))
    ids, decoder_ids = draw_ids(sum(lengths)), draw_ids(sum(decoder_lengths), 1)
    changed, place = ids.clone(), sum(lengths[:row]) + lengths[row] // 2
    changed[place] = 5 + (int(ids[place]) - 4) % (VOCABULARY - 5)
    with torch.no_grad():
        before, after = (
            unpadded.encode_pair(
                model, values, torch.tensor(lengths), decoder_ids, torch.tensor(decoder_lengths)
            ).split(decoder_lengths)
            for values in (ids, changed)
        )
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(one, other) == (number != row)


@pytest.mark.parametrize("name", ["gpt2", "llama", "zhouwenwang, writing", "t5", "bart", "pegasus"])
@settings(max_examples=6, deadline=None)
@given(lengths=ROWS, data=st.data())
def test_a_later_token_never_changes_an_earlier_state(
    name: str, lengths: list[int], data: Any
) -> None:
    model, ids = make_model(name), draw_ids(sum(lengths))
    place = data.draw(st.integers(0, sum(lengths) - 1))
    changed = ids.clone()
    changed[place] = 5 + (int(ids[place]) - 4) % (VOCABULARY - 5)
    sizes = torch.tensor(lengths)

    def run(values: Tensor) -> Tensor:
        with torch.no_grad():
            if name in CAUSAL:
                return unpadded.encode(model, values, sizes)
            return unpadded.encode_pair(model, ids, sizes, values, sizes)

    before, after = run(ids), run(changed)
    assert torch.equal(before[:place], after[:place])
    assert not torch.equal(before[place], after[place])


@pytest.mark.parametrize("end_id", [2, 7])
def test_clip_texts_equal_those_of_transformers(end_id: int) -> None:
    config = AutoConfig.for_model(
        "clip_text_model", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=48, max_position_embeddings=64,
        eos_token_id=end_id, projection_dim=8, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(1)
    model = CLIPTextModelWithProjection(config).eval()
    lengths = torch.tensor(LENGTHS)
    ids = draw_ids(sum(LENGTHS)).clamp(8, VOCABULARY - 2)
    ids[lengths.cumsum(0) - 1] = VOCABULARY - 1 if end_id == 2 else end_id
    padded, mask = pad_flat(ids, lengths, 0)
    with torch.no_grad():
        expected = model.text_model(input_ids=padded, attention_mask=mask)
        hidden = unpadded.encode(model, ids, lengths)
        pooled = unpadded.pool_text(model, hidden, ids, lengths)
    torch.testing.assert_close(
        hidden, expected.last_hidden_state[mask.bool()], rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=1e-5, atol=1e-5)


def test_chinese_clip_texts_equal_those_of_transformers() -> None:
    config = AutoConfig.for_model("chinese_clip_text_model", **BERT)
    torch.manual_seed(1)
    model = ChineseCLIPTextModel(config).eval()
    ids, lengths = draw_ids(sum(LENGTHS)), torch.tensor(LENGTHS)
    padded, mask = pad_flat(ids, lengths, 0)
    with torch.no_grad():
        expected = model(input_ids=padded, attention_mask=mask).last_hidden_state
        hidden = unpadded.encode(model, ids, lengths)
    torch.testing.assert_close(hidden, expected[mask.bool()], rtol=1e-5, atol=1e-5)
    assert torch.equal(
        unpadded.pool_text(model, hidden, ids, lengths), hidden[lengths.cumsum(0) - lengths]
    )


def test_token_types_reach_their_tokens() -> None:
    model, ids, lengths = make_model("bert"), draw_ids(sum(LENGTHS)), torch.tensor(LENGTHS)
    types = (torch.arange(sum(LENGTHS)) % 3 == 0).long()
    padded, mask = pad_flat(ids, lengths, 0)
    with torch.no_grad():
        expected = model.bert(padded, mask, pad_flat(types, lengths, 0)[0])[0][mask.bool()]
        hidden = unpadded.encode(model, ids, lengths, token_type_ids_N=types)
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)


def test_adapters_are_looked_into() -> None:
    peft = pytest.importorskip("peft")
    model, batch = make_model("bert"), single_batch()
    plain = build_loss(copy.deepcopy(model), Family.FILL_MASK, "flat")(**batch).detach()
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    )
    loss = build_loss(adapted, Family.FILL_MASK, "flat")
    value = loss(**batch)
    assert float(value.detach()) != pytest.approx(float(plain))
    value.backward()
    trained = {key for key, parameter in loss.named_parameters() if parameter.grad is not None}
    assert trained
    assert all("lora_" in key for key in trained)


@pytest.mark.parametrize(
    ("is_causal", "has_bias"),
    [(False, False), (False, True), (True, True)],  # nested tensors know no causal way on CPUs
)
def test_the_ways_of_accelerators_give_the_same(is_causal: bool, has_bias: bool) -> None:
    lengths, key_lengths = (3, 70, 1, 64), (3, 70, 1, 64)
    torch.manual_seed(2)
    states = [torch.randn(sum(lengths), 2, 8) for _ in range(3)]
    documents, others = (
        Documents(lengths=sizes, device=torch.device("cpu")) for sizes in (lengths, key_lengths)
    )

    def bias(query: Tensor, key: Tensor) -> Tensor:
        return query[..., :1] - 0.1 * torch.arange(key.shape[-2])

    heads = attention.Heads(*states)
    rule = attention.Rule(
        scale=0.3, dropout=0.0, is_causal=is_causal, bias=bias if has_bias else None, steps_N=None
    )
    expected = attention.attend(
        *states, documents, scale=0.3, dropout=0.0, is_causal=is_causal,
        bias=bias if has_bias else None,
    )  # fmt: skip
    if has_bias:
        found = attention.attend_padded(heads, documents, others, rule)
    else:
        found = attention.attend_nested(heads, documents, others, rule)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_architecture_is_named() -> None:
    config = AutoConfig.for_model("electra", hidden_size=8, num_hidden_layers=1, vocab_size=9)
    model = AutoModel.from_config(config)
    assert not unpadded.supports("electra")
    with pytest.raises(ConfigError, match="electra: no unpadded forward here; expected bert, "):
        unpadded.encode(model, torch.tensor([5]), torch.tensor([1]))
    with pytest.raises(ConfigError, match="batch.layout = flat: electra has no forward for it"):
        build_loss(model, Family.FILL_MASK, "flat")
    with pytest.raises(ConfigError, match="expected batch.micro_tokens"):
        build_loss(make_model("bert"), Family.FILL_MASK, "packed")
