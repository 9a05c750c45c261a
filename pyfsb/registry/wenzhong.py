# SPDX-License-Identifier: Apache-2.0
"""Wenzhong (闻仲): left-to-right decoders for generation. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry
from pyfsb.registry.facts import (
    CARD,
    DOCUMENTS,
    FIRST_CARD,
    HUB_FILES,
    README,
    WUDAO_300,
    claims,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

GPT2: Final[ConfigValues] = {
    "vocab_size": 50304,
    "n_positions": 1024,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-5,
}
GPT2_3B: Final[ConfigValues] = {**GPT2, "n_embd": 3072, "n_layer": 30, "n_head": 32}
"""Also that of Yuyuan-GPT2-3.5B, trained further from these weights."""
GPT2_3B_BUILT: Final = 3_556_000_000
GPT2_3B_NOTE: Final = (
    "The published layers have 3.40 B; with 50,304 pieces and positions it is 3.56 B, which the "
    "name rounds down."
)
_BYTES: Final = "English byte-BPE merges: two to three ids a hanzi (FS#89, FS#149)."

ENTRIES: Final = (
    ModelEntry(
        name="Wenzhong-GPT2-110M", paper_number=41,
        series=Series.WENZHONG, demand=Demand.GENERAL, task=Task.NLG, family=Family.GENERATE,
        architecture="gpt2",
        config={**GPT2, "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
        num_parameters=110_000_000,
        size_note="English GPT2-small with its 50,257 pieces has 124 M; the name is BERT-base's.",
        built_parameters=124_400_000,
        max_tokens=1024, objective=ObjectiveName.CAUSAL_LM, tokenizer="byte_bpe",
        hub_id="IDEA-CCNL/Wenzhong-GPT2-110M", aliases=("闻仲-110M",),
        card=f"{DOCUMENTS}/闻仲系列/Wenzhong-GPT2-110M.md",
        claims=claims(
            WUDAO_300, ("size", "12 layers", CARD),
            ("size", "274 MB of weights, two bytes a parameter", HUB_FILES),
        ),
        known_issues=(
            _BYTES, "Fine-tuned under ZeRO-3, its exports were partial weights (FS#89, FS#156).",
        ),
        source="published layer count; width and heads derived from GPT2-small",
    ),
    ModelEntry(
        name="Wenzhong-GPT2-3.5B", paper_number=42,
        series=Series.WENZHONG, demand=Demand.GENERAL, task=Task.NLG, family=Family.GENERATE,
        architecture="gpt2", config=GPT2_3B,
        num_parameters=3_500_000_000, size_note=GPT2_3B_NOTE, built_parameters=GPT2_3B_BUILT,
        max_tokens=1024, objective=ObjectiveName.CAUSAL_LM, tokenizer="byte_bpe",
        hub_id="IDEA-CCNL/Wenzhong-GPT2-3.5B",
        card=f"{DOCUMENTS}/闻仲系列/Wenzhong-GPT2-3.5B.md",
        other_hub_ids=("IDEA-CCNL/Wenzhong-3.5B",),
        legacy_names=("Wenzhong-3.5B", "闻仲-3.5B"),
        claims=claims(
            ("corpus", "100 GB of Chinese text", CARD),
            ("corpus", "five blended corpora", "FS#149"),
            ("size", "30 layers", CARD),
            ("compute", "256 A100 for 28 hours", f"{FIRST_CARD}, {README}"),
            ("compute", "32 A100 for 28 hours", CARD),
        ),
        known_issues=(_BYTES,),
        source="published config.json",
    ),
    ModelEntry(
        name="Wenzhong2.0-GPT2-3.5B-chinese", paper_number=43,
        series=Series.WENZHONG, demand=Demand.GENERAL, task=Task.NLG, family=Family.GENERATE,
        architecture="gpt2", config=GPT2_3B,
        num_parameters=3_500_000_000, size_note=GPT2_3B_NOTE, built_parameters=GPT2_3B_BUILT,
        max_tokens=1024, objective=ObjectiveName.CAUSAL_LM, tokenizer="byte_bpe",
        hub_id="IDEA-CCNL/Wenzhong2.0-GPT2-3.5B-chinese",
        card=f"{DOCUMENTS}/闻仲系列/Wenzhong2.0-GPT2-3.5B-chinese.md",
        aliases=("Wenzhong2.0-GPT2-3.5B", "闻仲2.0-3.5B"),
        claims=claims(WUDAO_300, ("size", "30 layers", CARD)),
        known_issues=(_BYTES,),
        unknown=("Compute.",),
        source="published layer count; the rest as Wenzhong-GPT2-3.5B",
    ),
)  # fmt: skip
