# SPDX-License-Identifier: Apache-2.0
"""The shape of every architecture, read from its config: one function for each.

A test compares every count of parameters with the model that Transformers builds. Called by
`flops` and `planner`; never builds a model and never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.training.shapes import ModelShape, Stack

ConfigMapping: TypeAlias = Mapping[str, Any]


def shape_of(architecture: str, config: ConfigMapping) -> ModelShape:
    """Return the shape of a model.

    Args:
        architecture: Transformers' `model_type`.
        config: Fields of its config; what is missing takes Transformers' default.

    Raises:
        UnknownNameError: No shape is known for this architecture.
        ConfigError: A size is not a positive number, or heads do not divide the width.
    """
    if architecture not in _SHAPES:
        known = ", ".join(sorted(_SHAPES))
        raise UnknownNameError(f"architecture (known: {known})", architecture, _SHAPES)
    build, defaults = _SHAPES[architecture]
    shape = build({**defaults, **config})
    for stack in shape.stacks:
        sizes = (stack.num_layers, stack.hidden, stack.num_heads, stack.width, stack.intermediate)
        if min(sizes) < 1 or shape.vocabulary < 1:
            raise ConfigError(f"{architecture}: sizes must be at least 1, got {stack}")
        if stack.width % stack.num_heads:
            raise ConfigError(
                f"{architecture}: {stack.num_heads} heads do not divide a width of {stack.width}"
            )
    return shape


def _encoder_stack(config: ConfigMapping) -> Stack:
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    return Stack(
        num_layers=config["num_hidden_layers"],
        hidden=hidden,
        num_heads=config["num_attention_heads"],
        width=hidden,
        kv_width=hidden,
        intermediate=intermediate,
        num_vectors=9 * hidden + intermediate,
        activation=config["hidden_act"],
    )


def _bert(config: ConfigMapping) -> ModelShape:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    rows = vocabulary + config["max_position_embeddings"] + config["type_vocab_size"]
    # Of the embeddings (BERT) or behind the last layer (Megatron), and of the head.
    norms = 2 * hidden + 2 * hidden
    return ModelShape(
        architecture="bert",
        body=_encoder_stack(config),
        vocabulary=vocabulary,
        head_transform_weights=hidden * hidden,
        embedding_parameters=rows * hidden,
        other_parameters=norms + hidden * hidden + hidden + vocabulary,
        max_positions=config["max_position_embeddings"],
        num_head_tensors=4,
        has_dropout=config["hidden_dropout_prob"] > 0,
    )


def _megatron_bert(config: ConfigMapping) -> ModelShape:
    shape = _bert(config)
    return replace(shape, body=replace(shape.body, norms_first=True))


def _deberta(config: ConfigMapping) -> ModelShape:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    width = hidden * hidden
    kernel = config["conv_kernel_size"]
    terms = str(config["pos_att_type"] or "").replace("|", " ").replace("'", " ").split()
    num_terms = sum(term.strip("[],") in ("c2p", "p2c") for term in terms)
    is_relative = config["relative_attention"]
    span = config["position_buckets"]
    if span < 1:
        longest = config["max_relative_positions"]
        span = longest if longest > 0 else config["max_position_embeddings"]
    own = 0 if config["share_att_key"] or not is_relative else num_terms * (width + hidden)
    body = replace(
        _encoder_stack(config),
        num_relative=2 * span if is_relative else 0,
        num_relative_terms=num_terms if is_relative else 0,
        num_relative_weights=own,
        convolution_weights=kernel * width,
        has_attention_bias=bool(is_relative and num_terms),
        num_stem_tensors=4 if kernel else 1,
    )
    positions = config["max_position_embeddings"] if config["position_biased_input"] else 0
    rows = vocabulary + positions + config["type_vocab_size"] + body.num_relative
    norms = 2 * hidden * (2 + (is_relative and "layer_norm" in config["norm_rel_ebd"]))
    convolution = 3 * hidden if kernel else 0
    return ModelShape(
        architecture="deberta-v2",
        body=body,
        vocabulary=vocabulary,
        head_transform_weights=width,
        embedding_parameters=rows * hidden,
        other_parameters=norms + convolution + width + hidden + vocabulary,
        max_positions=positions,
        num_head_tensors=4,
        has_dropout=config["hidden_dropout_prob"] > 0,
    )


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


def _clip_text(config: ConfigMapping) -> ModelShape:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    return ModelShape(
        architecture="clip_text_model",
        body=_encoder_stack(config),
        vocabulary=vocabulary,
        has_vocabulary_head=False,
        embedding_parameters=(vocabulary + config["max_position_embeddings"]) * hidden,
        other_parameters=2 * hidden,
        max_positions=config["max_position_embeddings"],
        is_causal=True,
    )


_BERT: Final = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
}  # fmt: skip
_MEGATRON_BERT: Final = {
    **_BERT, "vocab_size": 29056, "hidden_size": 1024, "num_hidden_layers": 24,
    "num_attention_heads": 16, "intermediate_size": 4096,
}  # fmt: skip
_DEBERTA_V2: Final = {
    "vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
    "intermediate_size": 6144, "max_position_embeddings": 512, "type_vocab_size": 0,
    "relative_attention": False, "max_relative_positions": -1, "position_buckets": -1,
    "position_biased_input": True, "pos_att_type": None, "share_att_key": False,
    "norm_rel_ebd": "none", "conv_kernel_size": 0, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
}  # fmt: skip
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
_T5: Final = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
    "num_decoder_layers": None, "num_heads": 8, "relative_attention_num_buckets": 32,
    "feed_forward_proj": "relu", "tie_word_embeddings": True, "dropout_rate": 0.1,
}  # fmt: skip
_MT5: Final = {
    **_T5, "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
_BART: Final = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "d_model": 1024, "encoder_layers": 12,
    "encoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_layers": 12,
    "decoder_ffn_dim": 4096, "decoder_attention_heads": 16, "positions_offset": 2,
    "activation_function": "gelu", "dropout": 0.1,
}  # fmt: skip
_PEGASUS: Final = {**_BART, "positions_offset": 0}
_CLIP_TEXT: Final = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}  # fmt: skip

_SHAPES: Final[dict[str, tuple[Callable[[ConfigMapping], ModelShape], ConfigMapping]]] = {
    "bert": (_bert, _BERT),
    "megatron-bert": (_megatron_bert, _MEGATRON_BERT),
    "deberta-v2": (_deberta, _DEBERTA_V2),
    "gpt2": (_gpt2, _GPT2),
    "llama": (_llama, _LLAMA),
    "t5": (_t5, _T5),
    "mt5": (_t5, _MT5),
    "bart": (_bart, _BART),
    "pegasus": (_bart, _PEGASUS),
    "clip_text_model": (_clip_text, _CLIP_TEXT),
}
"""Builder and Transformers' defaults of each architecture."""
