# SPDX-License-Identifier: Apache-2.0
"""Erlangshen (二郎神): bidirectional encoders for understanding. Data only."""

from __future__ import annotations

from pyfsb.registry.entry import Claim, ModelEntry
from pyfsb.registry.taxonomy import Demand, Series, Task

_MEGATRON_BERT = {
    "type_vocab_size": 2,
    "max_position_embeddings": 512,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
}

_DEBERTA_V2 = {
    "type_vocab_size": 0,
    "vocab_size": 12800,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "c2p|p2c",
    "conv_kernel_size": 3,
    "conv_act": "gelu",
    "max_relative_positions": -1,
    "position_biased_input": False,
}

ENTRIES = (
    ModelEntry(
        name="Erlangshen-MegatronBert-1.3B",
        series=Series.ERLANGSHEN,
        demand=Demand.GENERAL,
        task=Task.NLU,
        architecture="megatron-bert",
        config={
            **_MEGATRON_BERT,
            "vocab_size": 21248,
            "hidden_size": 2048,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "intermediate_size": 8192,
            "hidden_act": "gelu_new",
        },
        num_parameters=1_300_000_000,
        max_tokens=512,
        objective="whole_word",
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-MegatronBert-1.3B",
        aliases=("Erlangshen-1.3B", "二郎神-1.3B"),
        claims=(
            Claim(subject="corpus", statement="280 GB", source="early README"),
            Claim(subject="corpus", statement="180 GB (WuDao)", source="model card"),
            Claim(subject="compute", statement="32 A100 for 14 days", source="model card"),
        ),
        known_issues=("Loaded as plain BERT it loses the norm weights of each layer (FS#12).",),
        source="published config.json",
    ),
    ModelEntry(
        name="Erlangshen-MegatronBert-3.9B-Chinese",
        series=Series.ERLANGSHEN,
        demand=Demand.GENERAL,
        task=Task.NLU,
        architecture="megatron-bert",
        config={
            **_MEGATRON_BERT,
            "vocab_size": 21248,
            "hidden_size": 2560,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "intermediate_size": 10240,
            "hidden_act": "gelu",
        },
        num_parameters=3_900_000_000,
        max_tokens=512,
        objective="whole_word",
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-MegatronBert-3.9B-Chinese",
        source="published config.json",
    ),
    ModelEntry(
        name="Erlangshen-DeBERTa-v2-97M-Chinese",
        series=Series.ERLANGSHEN,
        demand=Demand.GENERAL,
        task=Task.NLU,
        architecture="deberta-v2",
        config={
            **_DEBERTA_V2,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
        num_parameters=97_000_000,
        max_tokens=512,
        objective="whole_word",
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-DeBERTa-v2-97M-Chinese",
        aliases=("Erlangshen-DeBERTa-v2-97M",),
        claims=(
            Claim(
                subject="compute",
                statement="24 A100-40G for 7 days, 1 billion samples",
                source="model card",
            ),
        ),
        known_issues=("The default DebertaV2 tokenizer is wrong for it: it is a BertTokenizer.",),
        source="published config.json",
    ),
    ModelEntry(
        name="Erlangshen-DeBERTa-v2-320M-Chinese",
        series=Series.ERLANGSHEN,
        demand=Demand.GENERAL,
        task=Task.NLU,
        architecture="deberta-v2",
        config={
            **_DEBERTA_V2,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
        num_parameters=320_000_000,
        max_tokens=512,
        objective="whole_word",
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-DeBERTa-v2-320M-Chinese",
        aliases=("Erlangshen-DeBERTa-v2-320M",),
        claims=(
            Claim(subject="compute", statement="8 A100-80G for 7 days", source="model card"),
        ),
        source="derived from the published parameter count",
    ),
)
