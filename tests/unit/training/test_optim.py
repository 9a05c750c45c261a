from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers import AutoModelForSeq2SeqLM as Seq2Seq

from pyfsb.config import OptimizerSpec
from pyfsb.errors import ConfigError
from pyfsb.training.optim import build_optimizer, is_decayed, learning_rate

SMALL: dict[str, Any] = {
    "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": 20,
}  # fmt: skip
SEQ2SEQ: dict[str, Any] = {
    "encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 20,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[Any, dict[str, Any], list[str], list[str]]] = {
    "bert": (AutoModelForMaskedLM, SMALL,
        ["bert.encoder.layer.0.attention.self.query.weight",
         "bert.embeddings.position_embeddings.weight"],
        ["bert.embeddings.LayerNorm.weight", "bert.encoder.layer.0.output.dense.bias",
         "cls.predictions.bias"]),
    "megatron-bert": (AutoModelForMaskedLM, SMALL,
        ["bert.encoder.layer.0.intermediate.dense.weight"],
        ["bert.encoder.layer.0.ln.weight", "bert.encoder.layer.0.attention.ln.bias",
         "bert.encoder.ln.weight"]),
    "deberta-v2": (AutoModelForMaskedLM, SMALL | {
            "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4},
        ["deberta.encoder.rel_embeddings.weight"],
        ["deberta.embeddings.LayerNorm.weight",
         "deberta.encoder.layer.0.attention.self.query_proj.bias"]),
    "gpt2": (AutoModelForCausalLM, {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 20},
        ["transformer.h.0.attn.c_attn.weight", "transformer.wpe.weight"],
        ["transformer.h.0.attn.c_attn.bias", "transformer.h.0.ln_1.weight",
         "transformer.ln_f.weight"]),
    "t5": (Seq2Seq, {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_heads": 2, "num_layers": 1,
                     "vocab_size": 20},
        ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"],
        ["encoder.block.0.layer.0.layer_norm.weight", "encoder.final_layer_norm.weight",
         "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]),
    "bart": (Seq2Seq, SEQ2SEQ,
        ["model.encoder.layers.0.fc1.weight", "model.encoder.embed_positions.weight"],
        ["model.encoder.layers.0.self_attn_layer_norm.weight",
         "model.decoder.layernorm_embedding.bias"]),
    "pegasus": (Seq2Seq, SEQ2SEQ,
        ["model.decoder.layers.0.encoder_attn.q_proj.weight"],
        ["model.encoder.layer_norm.weight", "model.decoder.layers.0.fc2.bias"]),
    "clip": (AutoModel, {"text_config": SMALL, "vision_config": {
            "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2,
            "intermediate_size": 16, "image_size": 8, "patch_size": 4}},
        ["text_projection.weight", "vision_model.embeddings.patch_embedding.weight"],
        ["logit_scale", "text_model.final_layer_norm.weight",
         "vision_model.embeddings.class_embedding"]),
}  # fmt: skip
"""For each architecture: its config, and parameters that decay and that do not."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decay_is_on_matrices_and_embeddings_only(architecture: str) -> None:
    kind, fields, decayed, kept = ARCHITECTURES[architecture]
    with torch.device("meta"):
        model: nn.Module = kind.from_config(AutoConfig.for_model(architecture, **fields))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, OptimizerSpec(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    found = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert set(decayed) <= found[0]
    assert set(kept) <= found[1]
    # Pegasus' positions are computed, not learnt.
    assert found[0] | found[1] == {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any(name.endswith("bias") or "norm" in name.lower() for name in found[0])


def test_a_parameter_that_zero_3_took_apart_counts_by_its_own_shape() -> None:
    parameter: Any = nn.Parameter(torch.empty(0))
    parameter.ds_shape = torch.Size((4, 4))
    assert is_decayed("layer.weight", parameter)


def test_frozen_parameters_are_left_out_and_a_model_of_matrices_has_one_group() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerSpec())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert optimizer.defaults["fused"]


def _rates(num_steps: int = 10, **fields: Any) -> list[float]:
    spec = OptimizerSpec.model_validate({"learning_rate": 1.0, "warmup_ratio": 0.2, **fields})
    return [learning_rate(spec, step=step, num_steps=num_steps) for step in range(num_steps)]


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"schedule": "linear"}, [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ({"schedule": "constant"}, [0.5, 1.0] + [1.0] * 8),
        (
            {"schedule": "cosine"},
            [0.5, 1.0, 1.0, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038],
        ),
        (
            {"schedule": "polynomial", "power": 2.0},
            [0.5, 1.0, 1.0, 0.7656, 0.5625, 0.3906, 0.25, 0.1406, 0.0625, 0.0156],
        ),
        (
            {"schedule": "polynomial", "power": 1.0, "min_learning_rate": 0.2, "decay_steps": 6},
            [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2, 0.2],
        ),
        (
            {"schedule": "linear", "warmup_steps": 0, "min_learning_rate": 0.5},
            [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55],
        ),
        (
            {"schedule": "inverse_sqrt", "warmup_steps": 4},
            [0.25, 0.5, 0.75, 1.0, 0.8944, 0.8165, 0.7559, 0.7071, 0.6667, 0.6325],
        ),
        (
            {"schedule": "inverse_sqrt", "warmup_steps": 1, "min_learning_rate": 0.4},
            [1.0, 0.7071, 0.5774, 0.5, 0.4472, 0.4082, 0.4, 0.4, 0.4, 0.4],
        ),
        (
            {"schedule": "wsd", "cooldown_ratio": 0.4, "min_learning_rate": 0.2},
            [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4],
        ),
    ],
)
def test_schedules(fields: dict[str, Any], rates: list[float]) -> None:
    assert _rates(**fields) == pytest.approx(rates, abs=1e-3)


def test_without_warmup_the_first_step_is_at_the_peak() -> None:
    for schedule in ("linear", "cosine", "wsd", "inverse_sqrt", "constant", "polynomial"):
        assert _rates(schedule=schedule, warmup_ratio=0.0)[0] == 1.0


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.accelerator import get_accelerator

    from pyfsb.training.deepspeed import check_precision

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: False)
    with pytest.raises(ConfigError, match=r"precision = fp16: this \w+ does not .* bf16 or fp32"):
        check_precision("fp16")
