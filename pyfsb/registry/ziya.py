# SPDX-License-Identifier: Apache-2.0
"""Ziya (姜子牙): the LLaMA that came after the paper. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ModelEntry
from pyfsb.registry.facts import CARD, claims
from pyfsb.registry.taxonomy import Demand, Series, Task

ENTRIES: Final = (
    ModelEntry(
        name="Ziya-LLaMA-13B-v1",
        series=Series.ZIYA, demand=Demand.GENERAL, task=Task.NLG, family=Family.GENERATE,
        architecture="llama",
        config={
            "vocab_size": 39410, "hidden_size": 5120, "intermediate_size": 13824,
            "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 40,
            "max_position_embeddings": 2048, "hidden_act": "silu", "rms_norm_eps": 1e-6,
            "initializer_range": 0.02, "tie_word_embeddings": False,
            "prompt_template": "<human>:{text}\n<bot>:", "prompt_end": "<human>:",
        },
        num_parameters=13_000_000_000, max_tokens=2048,
        objective=ObjectiveName.SFT, other_objectives=(ObjectiveName.CAUSAL_LM,),
        tokenizer="sentencepiece_bpe", languages=("zh", "en"),
        hub_id="IDEA-CCNL/Ziya-LLaMA-13B-v1",
        aliases=("Ziya-LLaMA-13B", "姜子牙-13B"), parent="LLaMA-13B", licence="GPL-3.0",
        claims=claims(
            ("corpus", "110 B of 125 B cleaned tokens, after the vocabulary was extended", CARD),
            ("compute", "160 A100-40G for 8 days, 118 TFLOP/s each, 2.6 M tokens a step", CARD),
            ("vocabulary", "7,000 to 8,000 hanzi added, 39,410 pieces in all", CARD),
            ("inference", "fp16 26 GB and 49.9 ms a token, int8 13 GB and 147 ms, on RTX 3090",
             "example ziya_inference"),
            ("C-Eval", "32.3 with transformers in fp16, 29.5 with llama.cpp in fp16",
             "example ziya_inference"),
        ),
        known_issues=(
            "Published as differences from LLaMA-13B, whose licence does not allow more: "
            "embeddings and head whole, all else to be added.",
            "The published fine-tuning pads with the end-of-text id under a mask of ones.",
        ),
        unknown=("Data of fine-tuning, reward model and PPO.",),
        source="LLaMA-13B's published sizes; vocabulary from the card",
    ),
)  # fmt: skip
