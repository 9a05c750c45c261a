# SPDX-License-Identifier: Apache-2.0
"""Randeng (燃灯): the four Pegasus models for summaries. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry, Score
from pyfsb.registry.facts import CARD, WUDAO_180, claims
from pyfsb.registry.taxonomy import Demand, Series, Task

_PEGASUS: Final[ConfigValues] = {
    "vocab_size": 50000,
    "activation_function": "gelu",
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
    "max_position_embeddings": 512,
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
_UNKNOWN: Final = ("The exact number of pieces.", "The activation.", "Compute.")
_CHOICES: Final = (
    "vocab_size = 50,000: from the counts of both sizes",
    "activation_function = gelu: the default of the class",
)
_DATA: Final = (
    ("data", "about 4 M rows of 7 sets: education, new2016zh, nlpcc, shence, sohu, thucnews, weibo",
     CARD),
    ("data", "LCSTS for the published scores, 128 tokens in, 64 out", CARD),
)  # fmt: skip


def _rouge(*pairs: tuple[tuple[float, float, float], str]) -> tuple[Score, ...]:
    """Return ROUGE-1, -2 and -L on LCSTS, as several sources give them."""
    return tuple(
        Score(
            task="lcsts", metric=f"ROUGE-{order}", value=round(value / 100, 6),
            split="unsaid", source=source,
        )
        for values, source in pairs
        for order, value in zip(("1", "2", "L"), values, strict=True)
    )  # fmt: skip


ENTRIES: Final = (
    ModelEntry(
        name="Randeng-Pegasus-238M-Chinese", paper_number=28,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_BASE, num_parameters=238_000_000, max_tokens=512,
        objective=ObjectiveName.GAP_SENTENCES, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-238M-Chinese",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_238M",),
        aliases=("Randeng_Pegasus_238M", "Randeng-Pegasus-238M"),
        claims=claims(WUDAO_180), known_issues=(_TOKENIZER_ISSUE,),
        unknown=_UNKNOWN, our_choices=_CHOICES,
        source="published layers and heads; widths and vocabulary derived from the count",
    ),
    ModelEntry(
        name="Randeng-Pegasus-238M-Summary-Chinese", paper_number=29,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_BASE, num_parameters=238_000_000, max_tokens=512,
        objective=ObjectiveName.REWRITING, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-238M-Summary-Chinese",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_238M_Summary",),
        aliases=("Randeng_Pegasus_238M_Summary", "Randeng-Pegasus-238M-Summary"),
        parent="Randeng-Pegasus-238M-Chinese",
        claims=claims(*_DATA),
        scores=_rouge(
            ((43.46, 29.59, 39.76), CARD), ((44.13, 31.31, 41.06), "documentation"),
        ),
        known_issues=(
            _TOKENIZER_ISSUE, "The card's example cuts at 1,024 tokens; positions end at 512.",
        ),
        unknown=_UNKNOWN, our_choices=_CHOICES,
        source="published layers and heads; widths and vocabulary derived from the count",
    ),
    ModelEntry(
        name="Randeng-Pegasus-523M-Chinese", paper_number=30,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_LARGE, num_parameters=523_000_000, max_tokens=1024,
        objective=ObjectiveName.GAP_SENTENCES, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-523M-Chinese",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_523M",),
        aliases=("Randeng_Pegasus_523M", "Randeng-Pegasus-523M"),
        claims=claims(WUDAO_180), known_issues=(_TOKENIZER_ISSUE,),
        unknown=_UNKNOWN, our_choices=_CHOICES,
        source="published layers and heads; widths and vocabulary derived from the count",
    ),
    ModelEntry(
        name="Randeng-Pegasus-523M-Summary-Chinese", paper_number=31,
        series=Series.RANDENG, demand=Demand.GENERAL, task=Task.NLT, family=Family.REWRITE,
        architecture="pegasus", config=_LARGE, num_parameters=523_000_000, max_tokens=1024,
        objective=ObjectiveName.REWRITING, tokenizer="jieba_wordpiece",
        hub_id="IDEA-CCNL/Randeng-Pegasus-523M-Summary-Chinese",
        other_hub_ids=("IDEA-CCNL/Randeng_Pegasus_523M_Summary",),
        aliases=("Randeng_Pegasus_523M_Summary", "Randeng-Pegasus-523M-Summary"),
        parent="Randeng-Pegasus-523M-Chinese",
        claims=claims(*_DATA),
        scores=_rouge(
            ((48.00, 35.24, 44.70), CARD), ((49.42, 37.91, 46.63), "documentation"),
        ),
        known_issues=(_TOKENIZER_ISSUE, "The released weights repeat one word for some (FS#143)."),
        unknown=_UNKNOWN, our_choices=_CHOICES,
        source="published layers and heads; widths and vocabulary derived from the count",
    ),
)  # fmt: skip
