# SPDX-License-Identifier: Apache-2.0
"""Randeng (燃灯): the four Pegasus models for summaries. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry, Score
from pyfsb.registry.facts import (
    CARD,
    DOCUMENTS,
    EXAMPLES,
    HUB_CARD,
    HUB_FILES,
    UNSAID,
    WUDAO_180,
    claims,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_PEGASUS: Final[ConfigValues] = {
    "vocab_size": 50000,
    "activation_function": "relu",
    "scale_embedding": True,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "init_std": 0.02,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
_BASE: Final[ConfigValues] = {
    **_PEGASUS,
    "d_model": 768,
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
}
_LARGE: Final[ConfigValues] = {
    **_PEGASUS,
    "d_model": 1024,
    "max_position_embeddings": 1024,
    "encoder_layers": 16,
    "decoder_layers": 16,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
}
_TOKENIZER_ISSUE: Final = (
    "AutoTokenizer of transformers cannot load it (FS#96, FS#440, FS#461, FS#470): jieba comes "
    "before WordPiece."
)
_DESCENDANT: Final = "config.json of Yuyi-Tech's fine-tuned Randeng-Pegasus-238M-Summary on the hub"
"""A fine-tuned model keeps the fields of the published config, which is not shown itself."""
_CARD_523M: Final = "model card of Randeng-Pegasus-523M-Summary-Chinese"
_FIRST: Final = (
    f"{EXAMPLES}/pegasus/README.md; {DOCUMENTS}/燃灯系列/Randeng-Pegasus-523M-Summary.md"
)
_UNKNOWN: Final = ("The exact number of pieces.", "Compute.")
_CHOICES: Final = (
    "vocab_size = 50,000: from the counts of both sizes; their vocab.txt has the 374 kB of "
    "T5-PEGASUS' 50,000 pieces",
)
_CHOICES_523M: Final = (*_CHOICES, "activation_function = relu: that of the 238M")
_LICENCE_ISSUE: Final = "Its page on the hub names no licence; that of the code is Apache-2.0."
_TOKENS_238M: Final = (
    ("length", "512 tokens in pretraining", f"{EXAMPLES}/pegasus/README.md"),
    ("length", "1,024 positions", _DESCENDANT),
    ("activation", "relu", _DESCENDANT),
    ("size", "477 MB of weights, two bytes a parameter", HUB_FILES),
)
_TOKENS_523M: Final = (
    ("length", "1,024 tokens in pretraining", f"{EXAMPLES}/pegasus/README.md"),
    ("size", "1.05 GB of weights, two bytes a parameter", HUB_FILES),
)
_GAPS: Final = ("objective", "a quarter of the sentences are gaps", HUB_CARD)
_DATA: Final = (
    ("data", "about 4 M rows of 7 sets: education, new2016zh, nlpcc, shence, sohu, thucnews, weibo",
     CARD),
    ("data", "LCSTS for the published scores, 128 tokens in, 64 out, learning rate 5e-5, "
     "128 rows a step, 8 beams", _CARD_523M),
)  # fmt: skip


def _rouge(*pairs: tuple[tuple[float, float, float], str]) -> tuple[Score, ...]:
    """Return ROUGE-1, -2 and -L on LCSTS, as several sources give them."""
    return tuple(
        Score(
            task="lcsts", metric=f"ROUGE-{order}", value=round(value / 100, 6),
            split=UNSAID, source=source,
        )
        for values, source in pairs
        for order, value in zip(("1", "2", "L"), values, strict=True)
    )  # fmt: skip


ENTRIES: Final = (
    ModelEntry(
        name="Randeng-Pegasus-238M-Chinese", paper_number=28,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_BASE, num_parameters=238_000_000, max_tokens=1024,
        objective=ObjectiveName.GAP_SENTENCES, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-238M-Chinese",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-Pegasus-238M-Chinese.md",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_238M",),
        aliases=("Randeng_Pegasus_238M", "Randeng-Pegasus-238M"),
        claims=claims(WUDAO_180, *_TOKENS_238M),
        known_issues=(_TOKENIZER_ISSUE, _LICENCE_ISSUE),
        unknown=_UNKNOWN, our_choices=_CHOICES,
        source=f"{_DESCENDANT}; vocabulary derived from the count",
    ),
    ModelEntry(
        name="Randeng-Pegasus-238M-Summary-Chinese", paper_number=29,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_BASE, num_parameters=238_000_000, max_tokens=1024,
        objective=ObjectiveName.REWRITING, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-238M-Summary-Chinese",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-Pegasus-238M-Summary-Chinese.md",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_238M_Summary",),
        aliases=("Randeng_Pegasus_238M_Summary", "Randeng-Pegasus-238M-Summary"),
        parent="Randeng-Pegasus-238M-Chinese",
        claims=claims(*_DATA, *_TOKENS_238M),
        scores=_rouge(((43.46, 29.59, 39.76), CARD), ((44.13, 31.31, 41.06), _FIRST)),
        known_issues=(_TOKENIZER_ISSUE, _LICENCE_ISSUE),
        unknown=_UNKNOWN, our_choices=_CHOICES,
        source=f"{_DESCENDANT}; vocabulary derived from the count",
    ),
    ModelEntry(
        name="Randeng-Pegasus-523M-Chinese", paper_number=30,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_LARGE, num_parameters=523_000_000, max_tokens=1024,
        objective=ObjectiveName.GAP_SENTENCES, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-523M-Chinese",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-Pegasus-523M-Chinese.md",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_523M",),
        aliases=("Randeng_Pegasus_523M", "Randeng-Pegasus-523M"),
        claims=claims(WUDAO_180, _GAPS, *_TOKENS_523M),
        known_issues=(_TOKENIZER_ISSUE, _LICENCE_ISSUE),
        unknown=_UNKNOWN, our_choices=_CHOICES_523M,
        source="published layers and heads; widths and vocabulary derived from the count",
    ),
    ModelEntry(
        name="Randeng-Pegasus-523M-Summary-Chinese", paper_number=31,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_LARGE, num_parameters=523_000_000, max_tokens=1024,
        objective=ObjectiveName.REWRITING, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-523M-Summary-Chinese",
        card=f"{DOCUMENTS}/燃灯系列/Randeng-Pegasus-523M-Summary-Chinese.md",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_523M_Summary",),
        aliases=("Randeng_Pegasus_523M_Summary", "Randeng-Pegasus-523M-Summary"),
        parent="Randeng-Pegasus-523M-Chinese",
        claims=claims(*_DATA, *_TOKENS_523M),
        scores=_rouge(((48.00, 35.24, 44.70), CARD), ((49.42, 37.91, 46.63), _FIRST)),
        known_issues=(
            _TOKENIZER_ISSUE, "The released weights repeat one word for some (FS#143).",
        ),
        unknown=_UNKNOWN, our_choices=_CHOICES_523M,
        source="published layers and heads; widths and vocabulary derived from the count",
    ),
)  # fmt: skip
