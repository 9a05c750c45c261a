# SPDX-License-Identifier: Apache-2.0
"""Ziya (姜子牙): the LLaMA that came after the paper. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ModelEntry
from pyfsb.registry.facts import EXAMPLES, HUB_CARD, claims
from pyfsb.registry.taxonomy import Demand, Series, Task

_INFERENCE: Final = f"{EXAMPLES}/ziya_inference/readme.md"

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
        card="hub: IDEA-CCNL/Ziya-LLaMA-13B-v1/README.md",
        aliases=("Ziya-LLaMA-13B", "姜子牙-13B"), parent="LLaMA-13B", licence="GPL-3.0",
        claims=claims(
            ("corpus", "110 B of 125 B cleaned tokens, after the vocabulary was extended",
             HUB_CARD),
            ("compute", "160 A100-40G for 8 days, 118 TFLOP/s each, 2.6 M tokens a step",
             HUB_CARD),
            ("vocabulary", "more than 7,000 hanzi added, 39,410 pieces in all", HUB_CARD),
            ("vocabulary", "more than 8,000 hanzi added, 39,410 pieces in all",
             f"first version of the {HUB_CARD}"),
            ("stages", "supervised, reward model, PPO", HUB_CARD),
            ("licence", "GPL-3.0", HUB_CARD),
            ("licence", "Apache-2.0", f"first version of the {HUB_CARD}"),
            ("inference", "fp16 26 GB, 49.89 ms a token on two RTX 3090, 28.65 ms on four",
             _INFERENCE),
            ("inference", "int8 13 GB, 147.06 ms a token on one RTX 3090", _INFERENCE),
            ("C-Eval", "32.29 in fp16 and 31.29 in int8 with transformers", _INFERENCE),
            ("C-Eval", "29.47 in q8_0, 30.46 in q5_1, 29.65 in q5_0, 30.89 in q4_1, 25.53 in q4_0 "
             "with llama.cpp", _INFERENCE),
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
