# SPDX-License-Identifier: Apache-2.0
"""Wenzhong (闻仲): left-to-right decoders for generation. Data only."""

from __future__ import annotations

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import Claim, ConfigValues, ModelEntry
from pyfsb.registry.taxonomy import Demand, Series, Task

_GPT2: ConfigValues = {
    "vocab_size": 50304,
    "n_positions": 1024,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-5,
}

ENTRIES = (
    ModelEntry(
        name="Wenzhong-GPT2-110M",
        series=Series.WENZHONG,
        demand=Demand.GENERAL,
        task=Task.NLG,
        family=Family.GENERATE,
        architecture="gpt2",
        config={**_GPT2, "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
        num_parameters=110_000_000,
        max_tokens=1024,
        objective=ObjectiveName.CAUSAL_LM,
        tokenizer="byte_bpe",
        hub_id="IDEA-CCNL/Wenzhong-GPT2-110M",
        known_issues=("English byte-BPE merges: two to three ids a hanzi (FS#89, FS#149).",),
        source="published layer count; width and heads derived from GPT2-base",
    ),
    ModelEntry(
        name="Wenzhong-GPT2-3.5B",
        series=Series.WENZHONG,
        demand=Demand.GENERAL,
        task=Task.NLG,
        family=Family.GENERATE,
        architecture="gpt2",
        config={**_GPT2, "n_embd": 3072, "n_layer": 30, "n_head": 32},
        num_parameters=3_500_000_000,
        max_tokens=1024,
        objective=ObjectiveName.CAUSAL_LM,
        tokenizer="byte_bpe",
        hub_id="IDEA-CCNL/Wenzhong-GPT2-3.5B",
        aliases=("Wenzhong-3.5B", "闻仲-3.5B"),
        claims=(
            Claim(subject="compute", statement="256 A100 for 28 hours", source="early README"),
            Claim(subject="compute", statement="32 A100 for 28 hours", source="documentation"),
        ),
        known_issues=("English byte-BPE merges: two to three ids a hanzi (FS#89, FS#149).",),
        source="published config.json",
    ),
)
