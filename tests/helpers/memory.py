"""Memory of a forward and backward of our flat losses, as torch's own tracker counts it on CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from pyfsb.config import Family
from pyfsb.models import unpadded
from pyfsb.models.heads import build_loss
from pyfsb.training.architectures import shape_of
from pyfsb.training.memory import MicroBatch, count_activations

PAIRS = ("t5", "mt5", "bart", "pegasus", "megatron-t5")
WRITERS = ("gpt2", "llama", "transfo-xl-denoise")


def config_of(architecture: str, *, hidden: int, layers: int, vocabulary: int) -> dict[str, Any]:
    """Return a config without dropout: on CPUs dropout keeps other masks than on accelerators."""
    heads, inner = hidden // 64 or 1, 4 * hidden
    if architecture == "gpt2":
        return {
            "vocab_size": vocabulary, "n_embd": hidden, "n_layer": layers, "n_head": heads,
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        }  # fmt: skip
    if architecture in ("t5", "mt5"):
        return {
            "vocab_size": vocabulary, "d_model": hidden, "d_kv": hidden // heads, "d_ff": inner,
            "num_layers": layers, "num_decoder_layers": layers, "num_heads": heads,
            "dropout_rate": 0.0,
        }  # fmt: skip
    if architecture in ("bart", "pegasus"):
        return {
            "vocab_size": vocabulary, "d_model": hidden, "encoder_layers": layers,
            "decoder_layers": layers, "encoder_ffn_dim": inner, "decoder_ffn_dim": inner,
            "encoder_attention_heads": heads, "decoder_attention_heads": heads,
            "max_position_embeddings": 512, "dropout": 0.0,
        }  # fmt: skip
    config = {
        "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": inner, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    more: dict[str, Any] = {"zen1": {"word_size": 50}, "zen2": {"word_size": 50}}
    more |= {
        "llama": {"intermediate_size": 3 * hidden},
        "rope-longformer": {"attention_window": 32},
    }
    if architecture != "deberta-v2":
        return config | more.get(architecture, {})
    return config | {
        "relative_attention": True, "position_buckets": 64, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "pos_att_type": "c2p|p2c", "conv_kernel_size": 3,
        "conv_act": "gelu", "position_biased_input": False, "type_vocab_size": 0,
    }  # fmt: skip


def compare(
    architecture: str,
    config: dict[str, Any],
    lengths: list[int],
    *,
    target_ratio: float,
    is_checkpointing: bool,
    dtype: torch.dtype = torch.float32,
) -> tuple[float, float, int]:
    """Return tracked bytes of activations at the peak, predicted ones, and parameters."""
    model = build(architecture, config).to(dtype).train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the tracker cannot watch those without (Pegasus)
        parameter.grad = torch.zeros_like(parameter)
    is_pair = architecture in PAIRS
    generates = is_pair or architecture in WRITERS
    loss = build_loss(
        model, Family.GENERATE if generates else Family.FILL_MASK,
        "flat" if unpadded.supports(architecture) else "padded",
        checkpoints_activations=is_checkpointing,
    )  # fmt: skip
    batch = make_batch(lengths, target_ratio, is_pair=is_pair)
    tracker = MemTracker()
    tracker.track_external(loss)
    with tracker:
        loss(**batch).backward()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    tracked = sum(
        value for kind, value in peak.items() if str(kind).rpartition(".")[2] in ("ACT", "TEMP")
    )
    num_tokens = sum(lengths)
    shape = replace(shape_of(architecture, config), side=None)  # no n-grams here
    predicted = count_activations(
        shape,
        MicroBatch(
            num_tokens=num_tokens,
            num_targets=batch["target_ids"].numel(),
            document_tokens=sum(length**2 for length in lengths) / num_tokens,
            decoder_tokens=batch["decoder_ids"].numel() if is_pair else 0,
        ),
        element_bytes=torch.empty((), dtype=dtype).element_size(),
        is_checkpointing=is_checkpointing,
    )
    return float(tracked), predicted, sum(p.numel() for p in model.parameters())


def build(architecture: str, config: dict[str, Any]) -> torch.nn.Module:
    """Return a model with its pretraining head."""
    kinds: dict[str, Any] = dict.fromkeys(WRITERS, AutoModelForCausalLM)
    kinds |= dict.fromkeys(PAIRS, AutoModelForSeq2SeqLM)
    settings = AutoConfig.for_model(architecture, **config)
    return kinds.get(architecture, AutoModelForMaskedLM).from_config(settings)


def make_batch(
    lengths: list[int], target_ratio: float, *, is_pair: bool
) -> dict[str, torch.Tensor]:
    """Return a flat batch: of pairs, `target_ratio` is decoder tokens over encoder tokens."""
    num_tokens = sum(lengths)
    batch = {"input_ids": torch.arange(num_tokens) % 50 + 5, "lengths": torch.tensor(lengths)}
    if is_pair:
        others = [max(1, int(length * target_ratio)) for length in lengths]
        positions = torch.arange(sum(others))
        batch |= {"decoder_ids": positions % 50 + 5, "decoder_lengths": torch.tensor(others)}
    else:
        positions = torch.arange(max(1, int(num_tokens * target_ratio)))
    return batch | {"target_positions": positions, "target_ids": positions % 50 + 5}
