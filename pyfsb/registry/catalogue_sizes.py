# SPDX-License-Identifier: Apache-2.0
"""Sizes and repositories of the catalogue's models whose class there is. Data only.

Configs are those that the names and versions stand for; with a checkpoint its own config.json
counts. Tests build each without memory and compare the parameters.
"""

from __future__ import annotations

from typing import Final

from pyfsb.registry.entry import Architecture, ConfigValues
from pyfsb.registry.facts import BERT
from pyfsb.schema import Schema


class CatalogueSize(Schema):
    """A size that several models have."""

    architecture: Architecture
    """`model_type` of its class."""
    config: ConfigValues
    """Fields of the class's config."""
    num_parameters: int
    """Parameters with the head of masked or left-to-right language modelling."""
    max_tokens: int = 512
    """Longest input in tokens."""


def _bert(
    millions: float,
    layers: int,
    hidden: int,
    heads: int,
    *,
    vocabulary: int = 21128,
    inner: int | None = None,
    architecture: Architecture = "bert",
    **more: float | str,
) -> CatalogueSize:
    """Return a size of BERT or of what is shaped like it."""
    config: ConfigValues = {
        **BERT,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner or 4 * hidden,
        **more,
    }
    return CatalogueSize(
        architecture=architecture, config=config, num_parameters=round(millions * 1e6)
    )


def _gpt2(millions: float, layers: int, hidden: int, heads: int, vocabulary: int) -> CatalogueSize:
    """Return a size of GPT-2."""
    config: ConfigValues = {
        "vocab_size": vocabulary,
        "n_positions": 1024,
        "n_layer": layers,
        "n_embd": hidden,
        "n_head": heads,
    }
    return CatalogueSize(
        architecture="gpt2", config=config, num_parameters=round(millions * 1e6), max_tokens=1024
    )


def _t5(
    millions: float,
    layers: int,
    hidden: int,
    inner: int,
    heads: int,
    vocabulary: int,
    architecture: Architecture,
    gate: str,
) -> CatalogueSize:
    """Return a size of T5 or mT5."""
    config: ConfigValues = {
        "vocab_size": vocabulary,
        "d_model": hidden,
        "d_kv": 64,
        "d_ff": inner,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": gate,
    }
    return CatalogueSize(
        architecture=architecture, config=config, num_parameters=round(millions * 1e6)
    )


def _bart(millions: float, layers: int, hidden: int, heads: int) -> CatalogueSize:
    """Return a size of BART with the vocabulary of fnlp's."""
    config: ConfigValues = {
        "vocab_size": 51271,
        "d_model": hidden,
        "max_position_embeddings": 1024,
        **{
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in (
                ("layers", layers),
                ("attention_heads", heads),
                ("ffn_dim", 4 * hidden),
            )
        },
    }
    return CatalogueSize(
        architecture="bart", config=config, num_parameters=round(millions * 1e6), max_tokens=1024
    )


SIZES: Final[dict[str, CatalogueSize]] = {
    "bert-tiny": _bert(3.2, 2, 128, 2),
    "bert-mini": _bert(8.8, 4, 256, 4),
    "bert-small": _bert(24.0, 4, 512, 8),
    "bert-medium": _bert(36.6, 8, 512, 8),
    "bert-base": _bert(102.3, 12, 768, 12),
    "bert-large": _bert(325.5, 24, 1024, 16),
    "bert-3-base": _bert(38.5, 3, 768, 12),
    "bert-3-large": _bert(61.0, 3, 1024, 16),
    "bert-4-large": _bert(73.6, 4, 1024, 16),
    "bert-6-large": _bert(98.8, 6, 1024, 16),
    "clue-tiny": _bert(7.5, 4, 312, 12, vocabulary=8021),
    "clue-tiny-3-768": _bert(28.4, 3, 768, 12, vocabulary=8021),
    "clue-tiny-3-312": _bert(6.3, 3, 312, 12, vocabulary=8021),
    "clue-large": _bert(311.9, 24, 1024, 16, vocabulary=8021),
    "word-base": _bert(111.9, 12, 768, 12, vocabulary=33586),
    "word-plus-base": _bert(124.6, 12, 768, 12, vocabulary=50000),
    "classical-base": _bert(104.4, 12, 768, 12, vocabulary=23292, architecture="roberta",
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1),
    "classical-large": _bert(328.4, 24, 1024, 16, vocabulary=23292, architecture="roberta",
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1),
    "albert-tiny": _bert(4.04, 4, 312, 12, inner=1248, architecture="albert", embedding_size=128),
    "albert-base": _bert(10.0, 12, 768, 12, architecture="albert", embedding_size=128),
    "albert-large": _bert(15.6, 24, 1024, 16, architecture="albert", embedding_size=128),
    "albert-xlarge": _bert(53.5, 24, 2048, 16, architecture="albert", embedding_size=128),
    "albert-xxlarge": _bert(205.6, 12, 4096, 16, inner=16384, architecture="albert",
        embedding_size=128),
    "electra-tiny": _bert(5.9, 4, 312, 12, inner=1248, architecture="electra",
        embedding_size=128, vocabulary=8021),
    "electra-small": _bert(12.3, 12, 256, 4, inner=1024, architecture="electra",
        embedding_size=128),
    "electra-small-ex": _bert(22.0, 24, 256, 4, inner=1024, architecture="electra",
        embedding_size=128),
    "electra-base": _bert(101.7, 12, 768, 12, architecture="electra", embedding_size=768),
    "electra-large": _bert(324.5, 24, 1024, 16, architecture="electra", embedding_size=1024),
    "ernie-base": _bert(99.9, 12, 768, 12, vocabulary=18000, architecture="ernie"),
    "ernie-large": _bert(317.0, 24, 1024, 16, vocabulary=12800, architecture="ernie"),
    "ernie3-base": _bert(118.0, 12, 768, 12, vocabulary=40000, architecture="ernie",
        max_position_embeddings=2048, type_vocab_size=4),
    "ernie3-medium": _bert(75.4, 6, 768, 12, vocabulary=40000, architecture="ernie",
        max_position_embeddings=2048, type_vocab_size=4),
    "ernie3-mini": _bert(27.0, 6, 384, 12, vocabulary=40000, architecture="ernie",
        max_position_embeddings=2048, type_vocab_size=4),
    "ernie3-micro": _bert(23.4, 4, 384, 12, vocabulary=40000, architecture="ernie",
        max_position_embeddings=2048, type_vocab_size=4),
    "ernie3-nano": _bert(17.9, 4, 312, 12, vocabulary=40000, architecture="ernie",
        max_position_embeddings=2048, type_vocab_size=4),
    "roformer-base": _bert(124.0, 12, 768, 12, vocabulary=50000, architecture="roformer",
        embedding_size=768, max_position_embeddings=1536),
    "roformer-small": _bert(30.0, 6, 384, 6, vocabulary=50000, architecture="roformer",
        embedding_size=384),
    "roformer-char-base": _bert(95.0, 12, 768, 12, vocabulary=12000, architecture="roformer",
        embedding_size=768),
    "roformer-sim-base": _bert(95.0, 12, 768, 12, vocabulary=12000, architecture="roformer",
        embedding_size=768),
    "roformer-sim-small": _bert(15.6, 6, 384, 6, vocabulary=12000, architecture="roformer",
        embedding_size=384),
    "simbert-tiny": _bert(9.2, 4, 312, 12, vocabulary=13685),
    "simbert-small": _bert(16.3, 6, 384, 12, vocabulary=13685),
    "simbert-base": _bert(96.0, 12, 768, 12, vocabulary=13685),
    "mobile-base-f2": _bert(27.2, 12, 768, 12, inner=512, architecture="mobilebert",
        embedding_size=128, intra_bottleneck_size=144, true_hidden_size=144,
        num_feedforward_networks=2),
    "mobile-base-f4": _bert(34.3, 12, 768, 12, inner=768, architecture="mobilebert",
        embedding_size=128, intra_bottleneck_size=144, true_hidden_size=144,
        num_feedforward_networks=4),
    "mobile-large-f2": _bert(43.8, 24, 1024, 16, inner=512, architecture="mobilebert",
        embedding_size=128, intra_bottleneck_size=128, true_hidden_size=128,
        num_feedforward_networks=2),
    "mobile-large-f4": _bert(50.2, 24, 1024, 16, inner=512, architecture="mobilebert",
        embedding_size=128, intra_bottleneck_size=128, true_hidden_size=128,
        num_feedforward_networks=4),
    "xlnet-base": CatalogueSize(
        architecture="xlnet", num_parameters=117_000_000,
        config={"vocab_size": 32000, "d_model": 768, "n_layer": 12, "n_head": 12,
                "d_inner": 3072},
    ),
    "xlnet-mid": CatalogueSize(
        architecture="xlnet", num_parameters=209_000_000,
        config={"vocab_size": 32000, "d_model": 768, "n_layer": 24, "n_head": 12,
                "d_inner": 3072},
    ),
    "xlnet-large": CatalogueSize(
        architecture="xlnet", num_parameters=360_000_000,
        config={"vocab_size": 32000, "d_model": 1024, "n_layer": 24, "n_head": 16,
                "d_inner": 4096},
    ),
    "zen-base": _bert(224.0, 12, 768, 12, architecture="zen1", num_hidden_word_layers=6,
        word_size=104089),
    "gpt-chat": CatalogueSize(
        architecture="openai-gpt", num_parameters=95_500_000,
        config={"vocab_size": 13088, "n_positions": 513, "n_layer": 12, "n_embd": 768,
                "n_head": 12},
    ),
    "gpt2-chat": _gpt2(95.9, 12, 768, 12, 13088),
    "gpt2-chitchat": _gpt2(81.9, 10, 768, 12, 13317),
    "gpt2-prose": _gpt2(102.1, 12, 768, 12, 21128),
    "cpm": _gpt2(2597.0, 32, 2560, 32, 30000),
    "bloom-zh": CatalogueSize(
        architecture="bloom", num_parameters=6_230_000_000, max_tokens=2048,
        config={"vocab_size": 46145, "hidden_size": 4096, "n_layer": 30, "n_head": 32},
    ),
    "t5-small-zh": _t5(54.9, 6, 512, 2048, 8, 21228, "t5", "relu"),
    "mengzi-t5": _t5(222.9, 12, 768, 2048, 12, 32128, "t5", "gated-gelu"),
    "t5-pegasus": _t5(275.0, 12, 768, 2048, 12, 50000, "mt5", "gated-gelu"),
    "t5-pegasus-small": _t5(95.2, 8, 512, 1024, 6, 50000, "mt5", "gated-gelu"),
    "bart-zh": _bart(140.0, 6, 768, 12),
    "bart-zh-large": _bart(407.0, 12, 1024, 16),
    "clip-zh": CatalogueSize(
        architecture="chinese_clip", num_parameters=188_262_913,
        config={
            "projection_dim": 512,
            "text_config": {
                "vocab_size": 21128, "hidden_size": 768, "num_hidden_layers": 12,
                "num_attention_heads": 12, "intermediate_size": 3072,
                "max_position_embeddings": 512, "type_vocab_size": 2,
            },
            "vision_config": {
                "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                "intermediate_size": 3072, "image_size": 224, "patch_size": 16,
            },
        },
    ),
}  # fmt: skip
