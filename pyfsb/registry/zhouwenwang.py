# SPDX-License-Identifier: Apache-2.0
"""Zhouwenwang (周文王): one encoder for masked and left-to-right language modelling. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ModelEntry
from pyfsb.registry.facts import BASE, BASE_SIZE_NOTE, BERT, CARD, claims, scores
from pyfsb.registry.taxonomy import Demand, Series, Task

_ISSUES: Final = (
    "The published module of 2023 adds its boolean mask to the scores, so nothing is masked; that "
    "of January 2022 masks. That the weights were trained with the latter is our reading.",
    "Token types choose the task: all 0 to understand, all 1 to go on writing.",
)
_UNKNOWN: Final = ("The ratio of masked to left-to-right samples.", "Corpus and compute.")
_CHOICE: Final = "half of the samples are masked ones, half have a causal tail; configurable"

ENTRIES: Final = (
    ModelEntry(
        name="Zhouwenwang-Unified-110M", paper_number=49,
        series=Series.ZHOUWENWANG, demand=Demand.SPECIAL, task=Task.EXPLORATION,
        family=Family.FILL_MASK, other_families=(Family.GENERATE,),
        architecture="zhouwenwang", config={**BERT, **BASE},
        num_parameters=110_000_000, size_note=BASE_SIZE_NOTE, built_parameters=101_900_000,
        max_tokens=512,
        objective=ObjectiveName.PREFIX_LM,
        other_objectives=(ObjectiveName.TOKEN_MLM, ObjectiveName.CAUSAL_LM),
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Zhouwenwang-Unified-110M",
        other_hub_ids=("IDEA-CCNL/Zhouwenwang-110M",),
        legacy_names=("Zhouwenwang-110M", "周文王-110M"),
        known_issues=_ISSUES, unknown=_UNKNOWN,
        our_choices=(_CHOICE, "vocab_size = 21,128: its tokenizer is a BertTokenizer"),
        source="derived from the name",
    ),
    ModelEntry(
        name="Zhouwenwang-Unified-1.3B", paper_number=48,
        series=Series.ZHOUWENWANG, demand=Demand.SPECIAL, task=Task.EXPLORATION,
        family=Family.FILL_MASK, other_families=(Family.GENERATE,),
        architecture="zhouwenwang",
        config={
            **BERT, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
            "intermediate_size": 8192,
        },
        num_parameters=1_300_000_000,
        size_note=(
            "24 layers of 2,048 with a Chinese BERT vocabulary have 1.26 B; the name rounds up."
        ),
        built_parameters=1_256_000_000,
        max_tokens=512,
        objective=ObjectiveName.PREFIX_LM,
        other_objectives=(ObjectiveName.TOKEN_MLM, ObjectiveName.CAUSAL_LM),
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Zhouwenwang-Unified-1.3B",
        other_hub_ids=("IDEA-CCNL/Zhouwenwang-1.3B",),
        legacy_names=("Zhouwenwang-1.3B", "周文王-1.3B"),
        claims=claims(("size", "13 B in one English sentence, 1.3 B elsewhere", CARD)),
        scores=scores(
            {
                "afqmc": 0.7463, "tnews": 0.6036, "iflytek": 0.6288, "ocnli": 0.7654,
                "cmnli": 0.7741, "wsc": 0.8849, "csl": 0.8777,
            },
            CARD,
        ),
        known_issues=_ISSUES, unknown=(*_UNKNOWN, "The number of attention heads."),
        our_choices=(
            _CHOICE, "num_attention_heads = 32: heads of 64, as in the small one",
            "vocab_size = 21,128: its tokenizer is a BertTokenizer",
        ),
        source="derived from the name; heads our choice",
    ),
)  # fmt: skip
