# SPDX-License-Identifier: Apache-2.0
"""Shapes of encoders, read from their configs: one function for each architecture.

Called by `architectures`. Never builds a model and never imports torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pyfsb.training.architectures_protocol import ConfigMapping, ShapeTable
from pyfsb.training.shapes import ModelShape, Side, Stack

_NGRAMS_PER_TOKEN: Final = 0.25
"""Of ZEN, at most: 128 n-grams in a text of 512 tokens, scaled with its length (the published
tokenizer's limit)."""


def encoder_stack(config: ConfigMapping) -> Stack:
    """Return the layers of a BERT, whatever stands before and behind them."""
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


def bert(config: ConfigMapping) -> ModelShape:
    """Return the shape of BERT with the head of its masked language model."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    rows = vocabulary + config["max_position_embeddings"] + config["type_vocab_size"]
    # Of the embeddings (BERT) or behind the last layer (Megatron), and of the head.
    norms = 2 * hidden + 2 * hidden
    return ModelShape(
        architecture="bert",
        body=encoder_stack(config),
        vocabulary=vocabulary,
        head_transform_weights=hidden * hidden,
        embedding_parameters=rows * hidden,
        other_parameters=norms + hidden * hidden + hidden + vocabulary,
        max_positions=config["max_position_embeddings"],
        num_head_tensors=4,
        has_dropout=config["hidden_dropout_prob"] > 0,
    )


def _roberta(config: ConfigMapping) -> ModelShape:
    # The first positions are those of padding.
    usable = config["max_position_embeddings"] - config["pad_token_id"] - 1
    return replace(bert(config), architecture="roberta", max_positions=usable)


def _megatron_bert(config: ConfigMapping) -> ModelShape:
    shape = bert(config)
    return replace(shape, body=replace(shape.body, norms_first=True))


def _without_positions(shape: ModelShape) -> ModelShape:
    """Return a BERT whose positions come in by other ways than a table."""
    table = shape.max_positions * shape.body.hidden
    return replace(shape, embedding_parameters=shape.embedding_parameters - table)


def _zhouwenwang(config: ConfigMapping) -> ModelShape:
    shape = _without_positions(_megatron_bert(config))
    return replace(shape, architecture="zhouwenwang")


def _rope_longformer(config: ConfigMapping) -> ModelShape:
    shape, windows = _without_positions(bert(config)), config["attention_window"]
    if isinstance(windows, int):
        windows = [windows] * config["num_hidden_layers"]
    if not config["use_sparse_attention"]:
        windows = []
    reaches = tuple(window // 2 for window in windows)
    return replace(shape, architecture="rope-longformer", body=replace(shape.body, reaches=reaches))


def _zen(config: ConfigMapping) -> ModelShape:
    """Return the shape of ZEN1, or of ZEN2: `has_relative_positions` tells them apart."""
    shape, hidden = bert(config), config["hidden_size"]
    body = shape.body
    if config["has_relative_positions"]:
        shape = _without_positions(shape)
        body = replace(
            body,
            num_vectors=body.num_vectors + 2 * hidden,  # the two biases of relative positions
            num_relative=2 * config["max_position_embeddings"],
            num_relative_terms=1,
            has_attention_bias=True,
        )
    ngrams = (config["word_size"] + config["type_vocab_size"]) * hidden
    # The norm of the n-grams' embeddings, and the pooler, which every head has.
    beside = 2 * hidden + hidden * hidden + hidden
    side = Side(
        stack=replace(body, num_layers=config["num_hidden_word_layers"]),
        vocabulary=config["word_size"],
        tokens_per_token=_NGRAMS_PER_TOKEN,
        num_additions=body.num_layers,
    )
    return replace(
        shape,
        architecture="zen2" if config["has_relative_positions"] else "zen1",
        body=body,
        side=side,
        embedding_parameters=shape.embedding_parameters + ngrams,
        other_parameters=shape.other_parameters + beside,
        is_flat=False,
    )


def _extraction(config: ConfigMapping) -> ModelShape:
    """Return the shape of UBERT (`biaffine_size`) or UniEX: a BERT with a small head for spans."""
    hidden, is_ubert = config["hidden_size"], "biaffine_size" in config
    width = config["biaffine_size" if is_ubert else "triaffine_hidden_size"]
    num_projections = 2 if is_ubert else 3
    form = (width + 1) ** 2 if is_ubert else width**3
    return replace(
        bert(config),
        architecture="ubert" if is_ubert else "uniex",
        has_vocabulary_head=False,
        head_transform_weights=num_projections * hidden * width,
        # The norm of the embeddings, and the head.
        other_parameters=2 * hidden + num_projections * (hidden + 1) * width + form,
        is_flat=False,
    )


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
        encoder_stack(config),
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


BERT: Final = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
}  # fmt: skip
"""Transformers' defaults."""
_ROBERTA: Final = {**BERT, "vocab_size": 50265, "pad_token_id": 1}
_MEGATRON_BERT: Final = {
    **BERT, "vocab_size": 29056, "hidden_size": 1024, "num_hidden_layers": 24,
    "num_attention_heads": 16, "intermediate_size": 4096,
}  # fmt: skip
_CHINESE_BERT: Final = {**BERT, "vocab_size": 21128}
_ROPE_LONGFORMER: Final = {
    **_CHINESE_BERT, "max_position_embeddings": 4096, "attention_window": 512,
    "use_sparse_attention": True,
}  # fmt: skip
_ZEN1: Final = {
    **_CHINESE_BERT, "word_size": 104089, "num_hidden_word_layers": 6,
    "has_relative_positions": False,
}  # fmt: skip
_ZEN2: Final = {**_ZEN1, "word_size": 261361, "has_relative_positions": True}
_DEBERTA_V2: Final = {
    "vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
    "intermediate_size": 6144, "max_position_embeddings": 512, "type_vocab_size": 0,
    "relative_attention": False, "max_relative_positions": -1, "position_buckets": -1,
    "position_biased_input": True, "pos_att_type": None, "share_att_key": False,
    "norm_rel_ebd": "none", "conv_kernel_size": 0, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
}  # fmt: skip

SHAPES: Final[ShapeTable] = {
    "bert": (bert, BERT),
    "roberta": (_roberta, _ROBERTA),
    "megatron-bert": (_megatron_bert, _MEGATRON_BERT),
    "deberta-v2": (_deberta, _DEBERTA_V2),
    "rope-longformer": (_rope_longformer, _ROPE_LONGFORMER),
    "zhouwenwang": (_zhouwenwang, _CHINESE_BERT),
    "zen1": (_zen, _ZEN1),
    "zen2": (_zen, _ZEN2),
    "ubert": (_extraction, {**BERT, "biaffine_size": 256}),
    "uniex": (_extraction, {**BERT, "triaffine_hidden_size": 256}),
}
"""Builder and defaults of each architecture."""
