# SPDX-License-Identifier: Apache-2.0
"""Shapes of decoders and encoder-decoders, read from their configs: one function for each.

Called by `architectures`. Never builds a model and never imports torch.
"""

from __future__ import annotations

from typing import Final

from pyfsb.training.architectures_protocol import ConfigMapping, ShapeTable
from pyfsb.training.shapes import ModelShape, Stack


def _gpt2(config: ConfigMapping) -> ModelShape:
    hidden, intermediate = config["n_embd"], config["n_inner"] or 4 * config["n_embd"]
    body = Stack(
        num_layers=config["n_layer"],
        hidden=hidden,
        num_heads=config["n_head"],
        width=hidden,
        kv_width=hidden,
        intermediate=intermediate,
        num_vectors=9 * hidden + intermediate,
        activation=config["activation_function"],
        norms_first=True,
    )
    return ModelShape(
        architecture="gpt2",
        body=body,
        vocabulary=config["vocab_size"],
        embedding_parameters=(config["vocab_size"] + config["n_positions"]) * hidden,
        other_parameters=2 * hidden,
        max_positions=config["n_positions"],
        is_causal=True,
        has_dropout=config["resid_pdrop"] > 0,
    )


def _llama(config: ConfigMapping) -> ModelShape:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    vocabulary, intermediate = config["vocab_size"], config["intermediate_size"]
    head_size = config["head_dim"] or hidden // heads
    kv_width = (config["num_key_value_heads"] or heads) * head_size
    biases = config["attention_bias"] * (heads * head_size + 2 * kv_width + hidden)
    biases += config["mlp_bias"] * (2 * intermediate + hidden)
    body = Stack(
        num_layers=config["num_hidden_layers"],
        hidden=hidden,
        num_heads=heads,
        width=heads * head_size,
        kv_width=kv_width,
        intermediate=intermediate,
        num_feedforward_matrices=3,
        num_vectors=2 * hidden + biases,
        activation=config["hidden_act"],
        has_rms_norm=True,
        num_stem_tensors=3,
    )
    head = 0 if config["tie_word_embeddings"] else vocabulary * hidden
    return ModelShape(
        architecture="llama",
        body=body,
        vocabulary=vocabulary,
        embedding_parameters=vocabulary * hidden,
        other_parameters=hidden + head,
        max_positions=config["max_position_embeddings"],
        is_causal=True,
        has_tied_head=config["tie_word_embeddings"],
    )


def _transfo_xl_denoise(config: ConfigMapping) -> ModelShape:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    intermediate = config["intermediate_size"] or 4 * hidden
    is_relative, longest = config["relative_encoding"], config["max_position_embeddings"]
    memory = config["max_memory_length"]
    body = Stack(
        num_layers=config["num_hidden_layers"],
        hidden=hidden,
        num_heads=config["num_attention_heads"],
        width=hidden,
        kv_width=hidden,
        intermediate=intermediate,
        num_vectors=9 * hidden + intermediate,
        activation="gelu",  # the tanh form, but as one operation
        norms_first=True,
        num_relative=longest + memory if is_relative else 0,
        num_relative_terms=1 if is_relative else 0,
        num_relative_weights=hidden * hidden + hidden if is_relative else 0,
        has_past_distances=True,
        has_attention_bias=is_relative,
    )
    # Two biases of relative scores that all layers share, or a table of positions.
    rows = vocabulary if is_relative else vocabulary + longest
    return ModelShape(
        architecture="transfo-xl-denoise",
        body=body,
        vocabulary=vocabulary,
        embedding_parameters=rows * hidden,
        other_parameters=2 * hidden + (2 * hidden if is_relative else 0),
        max_positions=longest,
        is_causal=True,
        has_dropout=config["hidden_dropout_prob"] > 0,
        is_flat=False,
    )


def _t5(config: ConfigMapping) -> ModelShape:
    hidden, vocabulary, heads = config["d_model"], config["vocab_size"], config["num_heads"]
    is_gated = str(config["feed_forward_proj"]).startswith("gated")

    def stack(num_layers: int, *, is_decoder: bool) -> Stack:
        return Stack(
            num_layers=num_layers,
            hidden=hidden,
            num_heads=heads,
            width=heads * config["d_kv"],
            kv_width=heads * config["d_kv"],
            intermediate=config["d_ff"],
            num_feedforward_matrices=3 if is_gated else 2,
            num_vectors=(3 if is_decoder else 2) * hidden,
            has_cross_attention=is_decoder,
            activation=str(config["feed_forward_proj"]).removeprefix("gated-"),
            has_rms_norm=True,
            has_attention_bias=True,
            num_stem_tensors=2 if is_decoder else 3,
        )

    num_layers = config["num_layers"]
    biases = 2 * config["relative_attention_num_buckets"] * heads
    head = 0 if config["tie_word_embeddings"] else vocabulary * hidden
    return ModelShape(
        architecture="t5",
        body=stack(num_layers, is_decoder=False),
        decoder=stack(config["num_decoder_layers"] or num_layers, is_decoder=True),
        vocabulary=vocabulary,
        embedding_parameters=vocabulary * hidden,
        other_parameters=2 * hidden + biases + head,
        max_positions=0,
        has_tied_head=config["tie_word_embeddings"],
        has_dropout=config["dropout_rate"] > 0,
    )


def _megatron_t5(config: ConfigMapping) -> ModelShape:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    heads, intermediate = config["num_attention_heads"], config["intermediate_size"]
    width = heads * (config["head_dim"] or hidden // heads)

    def stack(num_layers: int, *, is_decoder: bool) -> Stack:
        num_parts = 2 if is_decoder else 1  # attentions with their biases and norm
        return Stack(
            num_layers=num_layers,
            hidden=hidden,
            num_heads=heads,
            width=width,
            kv_width=width,
            intermediate=intermediate,
            num_vectors=num_parts * (3 * width + 3 * hidden) + intermediate + 3 * hidden,
            has_cross_attention=is_decoder,
            activation=config["hidden_act"],
            norms_first=True,
        )

    num_layers, positions = config["num_hidden_layers"], config["max_position_embeddings"]
    return ModelShape(
        architecture="megatron-t5",
        body=stack(num_layers, is_decoder=False),
        decoder=stack(config["decoder_layers"] or num_layers, is_decoder=True),
        vocabulary=vocabulary,
        embedding_parameters=(vocabulary + positions) * hidden,  # both sides share them
        other_parameters=4 * hidden + vocabulary,
        max_positions=positions,
        has_dropout=config["hidden_dropout_prob"] > 0,
        is_flat=False,
    )


def _mt5(config: ConfigMapping) -> ModelShape:
    """Return the shape of mT5: its head is a matrix of its own, whatever its config says."""
    return _t5({**config, "tie_word_embeddings": False})


def _bart(config: ConfigMapping) -> ModelShape:
    """Return the shape of BART, or of Pegasus: `positions_offset` tells them apart."""
    hidden, vocabulary = config["d_model"], config["vocab_size"]

    def stack(side: str, *, is_decoder: bool) -> Stack:
        intermediate = config[f"{side}_ffn_dim"]
        return Stack(
            num_layers=config[f"{side}_layers"],
            hidden=hidden,
            num_heads=config[f"{side}_attention_heads"],
            width=hidden,
            kv_width=hidden,
            intermediate=intermediate,
            num_vectors=(15 if is_decoder else 9) * hidden + intermediate,
            has_cross_attention=is_decoder,
            activation=config["activation_function"],
            num_stem_tensors=1 if is_decoder else 2,
        )

    # BART's tables have two rows more; one norm a stack: behind the embeddings or the layers.
    positions = config["max_position_embeddings"] + config["positions_offset"]
    return ModelShape(
        architecture="bart",
        body=stack("encoder", is_decoder=False),
        decoder=stack("decoder", is_decoder=True),
        vocabulary=vocabulary,
        embedding_parameters=(vocabulary + 2 * positions) * hidden,
        other_parameters=4 * hidden,
        max_positions=config["max_position_embeddings"],
        has_dropout=config["dropout"] > 0,
    )


_GPT2: Final = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
    "n_inner": None, "activation_function": "gelu_new", "resid_pdrop": 0.1,
}  # fmt: skip
_LLAMA: Final = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None,
    "max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False,
    "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
_TRANSFO_XL_DENOISE: Final = {
    "vocab_size": 50048, "hidden_size": 1600, "num_hidden_layers": 32, "num_attention_heads": 25,
    "intermediate_size": None, "max_position_embeddings": 512, "max_memory_length": 512,
    "relative_encoding": True, "hidden_dropout_prob": 0.1,
}  # fmt: skip
_T5: Final = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
    "num_decoder_layers": None, "num_heads": 8, "relative_attention_num_buckets": 32,
    "feed_forward_proj": "relu", "tie_word_embeddings": True, "dropout_rate": 0.1,
}  # fmt: skip
_MT5: Final = {
    **_T5, "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
_MEGATRON_T5: Final = {
    "vocab_size": 21248, "hidden_size": 1024, "num_hidden_layers": 24, "decoder_layers": None,
    "num_attention_heads": 16, "head_dim": None, "intermediate_size": 4096, "hidden_act": "gelu",
    "max_position_embeddings": 512, "hidden_dropout_prob": 0.1,
}  # fmt: skip
_BART: Final = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "d_model": 1024, "encoder_layers": 12,
    "encoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_layers": 12,
    "decoder_ffn_dim": 4096, "decoder_attention_heads": 16, "positions_offset": 2,
    "activation_function": "gelu", "dropout": 0.1,
}  # fmt: skip
_PEGASUS: Final = {**_BART, "positions_offset": 0}

SHAPES: Final[ShapeTable] = {
    "gpt2": (_gpt2, _GPT2),
    "llama": (_llama, _LLAMA),
    "transfo-xl-denoise": (_transfo_xl_denoise, _TRANSFO_XL_DENOISE),
    "t5": (_t5, _T5),
    "mt5": (_mt5, _MT5),
    "megatron-t5": (_megatron_t5, _MEGATRON_T5),
    "bart": (_bart, _BART),
    "pegasus": (_bart, _PEGASUS),
}
"""Builder and defaults of each architecture."""
