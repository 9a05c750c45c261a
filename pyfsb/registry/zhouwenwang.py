# SPDX-License-Identifier: Apache-2.0
"""Zhouwenwang (周文王): one encoder for masked and left-to-right language modelling. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry
from pyfsb.registry.facts import (
    BASE,
    BERT,
    CARD,
    DOCUMENTS,
    FIRST_CARD,
    HUB_FILES,
    UNSAID,
    claims,
    scores,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_ISSUES: Final = (
    "The published module of 2023 adds its boolean mask to the scores, so nothing is masked; that "
    "of January 2022 masks. That the weights were trained with the latter is our reading.",
    "Token types choose the task: all 0 to understand, all 1 to go on writing.",
)
_UNKNOWN: Final = ("The ratio of masked to left-to-right samples.", "Corpus and compute.")
_VOCABULARY: Final = (
    "vocab_size = 12,000: its vocab.txt has the 53.5 kB of the Chinese RoFormer's over characters"
)
_CONFIG: Final[ConfigValues] = {**BERT, "vocab_size": 12000}
_CHOICE: Final = (
    "a third of the texts each is masked, written from the start, from a prefix; configurable"
)

ENTRIES: Final = (
    ModelEntry(
        name="Zhouwenwang-Unified-110M", paper_number=49,
        series=Series.ZHOUWENWANG, demand=Demand.SPECIAL, task=Task.EXPLORATION,
        family=Family.FILL_MASK, other_families=(Family.GENERATE,),
        architecture="zhouwenwang", config={**_CONFIG, **BASE},
        num_parameters=110_000_000,
        size_note=(
            "Named after English BERT-base's 110 M; with the 12,000 pieces of the Chinese RoFormer "
            "over characters it is 95 M, as the 189 MB of its weights in two bytes are."
        ),
        built_parameters=94_900_000,
        max_tokens=512,
        objective=ObjectiveName.PREFIX_LM,
        other_objectives=(ObjectiveName.TOKEN_MLM, ObjectiveName.CAUSAL_LM),
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Zhouwenwang-Unified-110M",
        card=f"{DOCUMENTS}/周文王系列/Zhouwenwang-Unified-110M.md",
        other_hub_ids=("IDEA-CCNL/Zhouwenwang-110M",),
        legacy_names=("Zhouwenwang-110M", "周文王-110M"),
        claims=claims(
            ("positions", "rotary, from joint work with Zhuiyi", CARD),
            ("token types", "0 for what is understood, 1 for what is written on", FIRST_CARD),
            ("vocabulary", "a vocab.txt of 53.5 kB, as that of Erlangshen-Longformer", HUB_FILES),
        ),
        known_issues=_ISSUES, unknown=_UNKNOWN, our_choices=(_CHOICE, _VOCABULARY),
        source="derived from the name; vocabulary from the size of its file",
    ),
    ModelEntry(
        name="Zhouwenwang-Unified-1.3B", paper_number=48,
        series=Series.ZHOUWENWANG, demand=Demand.SPECIAL, task=Task.EXPLORATION,
        family=Family.FILL_MASK, other_families=(Family.GENERATE,),
        architecture="zhouwenwang",
        config={
            **_CONFIG, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
            "intermediate_size": 8192,
        },
        num_parameters=1_300_000_000,
        size_note=(
            "24 layers of 2,048 with a vocabulary of 12,000 pieces have 1.24 B; the name rounds up."
        ),
        built_parameters=1_237_000_000,
        max_tokens=512,
        objective=ObjectiveName.PREFIX_LM,
        other_objectives=(ObjectiveName.TOKEN_MLM, ObjectiveName.CAUSAL_LM),
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Zhouwenwang-Unified-1.3B",
        card=f"{DOCUMENTS}/周文王系列/Zhouwenwang-Unified-1.3B.md",
        other_hub_ids=("IDEA-CCNL/Zhouwenwang-1.3B",),
        legacy_names=("Zhouwenwang-1.3B", "周文王-1.3B"),
        claims=claims(
            ("size", "13 B in one English sentence, 1.3 B elsewhere", CARD),
            ("positions", "rotary, from joint work with Zhuiyi", CARD),
        ),
        scores=scores(
            {
                "afqmc": 0.7463, "tnews": 0.6036, "iflytek": 0.6288, "ocnli": 0.7654,
                "cmnli": 0.7741, "wsc": 0.8849, "csl": 0.8777,
            },
            CARD, split=UNSAID,
        ),
        known_issues=_ISSUES, unknown=(*_UNKNOWN, "The number of attention heads."),
        our_choices=(
            _CHOICE, "num_attention_heads = 32: heads of 64, as in the small one", _VOCABULARY,
        ),
        source="derived from the name; vocabulary from the size of its file; heads our choice",
    ),
)  # fmt: skip
