# SPDX-License-Identifier: Apache-2.0
"""Yuyuan (余元): models of the medical domain, English ones. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry, Score
from pyfsb.registry.facts import CARD, DOCUMENTS, FIRST_CARD, HUB_CARD, claims
from pyfsb.registry.taxonomy import Demand, Series, Task
from pyfsb.registry.wenzhong import GPT2_3B, GPT2_3B_BUILT, GPT2_3B_NOTE

_BART: Final[ConfigValues] = {
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "init_std": 0.02,
}
_BIOBART: Final = "arXiv:2204.03905"
_MEDQA: Final = "100 unseen question and answer pairs"


def _bleu(metric: str, *values: float) -> tuple[Score, ...]:
    """Return BLEU of YuyuanQA for 1- to 4-grams."""
    return tuple(
        Score(
            task="medquad", metric=f"{metric}, {order}-gram", value=value, split=_MEDQA,
            source=CARD,
        )
        for order, value in enumerate(values, start=1)
    )  # fmt: skip


ENTRIES: Final = (
    ModelEntry(
        name="Yuyuan-Bart-139M", paper_number=44,
        series=Series.YUYUAN, demand=Demand.SPECIAL, task=Task.DOMAIN, family=Family.REWRITE,
        other_families=(Family.FILL_MASK,),
        architecture="bart",
        config={
            **_BART, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6,
            "encoder_attention_heads": 12, "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
        },
        num_parameters=139_000_000, max_tokens=1024,
        objective=ObjectiveName.TEXT_INFILLING, tokenizer="byte_bpe", languages=("en",),
        hub_id="IDEA-CCNL/Yuyuan-Bart-139M",
        card=f"{DOCUMENTS}/余元系列/Yuyuan-Bart-139M.md",
        aliases=("BioBART-base",), parent="facebook/bart-base",
        claims=claims(
            ("corpus", "medical: PubMed abstracts, 41 GB", CARD),
            ("compute", "16 A100-40G for 100 hours", CARD),
        ),
        source="English BART-base's published config.json",
    ),
    ModelEntry(
        name="Yuyuan-Bart-400M", paper_number=45,
        series=Series.YUYUAN, demand=Demand.SPECIAL, task=Task.DOMAIN, family=Family.REWRITE,
        other_families=(Family.FILL_MASK,),
        architecture="bart",
        config={
            **_BART, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12,
            "encoder_attention_heads": 16, "decoder_attention_heads": 16,
            "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096,
        },
        num_parameters=400_000_000,
        size_note="English BART-large has 406 M; the name rounds down.",
        built_parameters=406_300_000, max_tokens=1024,
        objective=ObjectiveName.TEXT_INFILLING, tokenizer="byte_bpe", languages=("en",),
        hub_id="IDEA-CCNL/Yuyuan-Bart-400M",
        card=f"{DOCUMENTS}/余元系列/Yuyuan-Bart-400M.md",
        aliases=("BioBART-large",), parent="facebook/bart-large",
        claims=claims(
            ("corpus", "medical: PubMed abstracts, 41 GB", CARD),
            ("compute", "16 A100-40G for 168 hours", CARD),
            ("size", "400 M in the title, 139 M in the text of the same card", CARD),
        ),
        source=f"English BART-large's published config.json; {_BIOBART}",
    ),
    ModelEntry(
        name="Yuyuan-GPT2-3.5B", paper_number=46,
        series=Series.YUYUAN, demand=Demand.SPECIAL, task=Task.DOMAIN, family=Family.GENERATE,
        architecture="gpt2", config=GPT2_3B,
        num_parameters=3_500_000_000, size_note=GPT2_3B_NOTE, built_parameters=GPT2_3B_BUILT,
        max_tokens=1024, objective=ObjectiveName.CAUSAL_LM, tokenizer="byte_bpe",
        languages=("en", "zh"),
        hub_id="IDEA-CCNL/Yuyuan-GPT2-3.5B", other_hub_ids=("IDEA-CCNL/Yuyuan-3.5B",),
        card=f"{DOCUMENTS}/余元系列/Yuyuan-GPT2-3.5B.md",
        legacy_names=("Yuyuan-3.5B", "余元-3.5B"), parent="Wenzhong-GPT2-3.5B",
        claims=claims(
            ("corpus", "50 GB of medical text", CARD),
            ("corpus", "PubMed", HUB_CARD),
            ("languages", "mostly English", "model card of YuyuanQA-GPT2-3.5B"),
            ("compute", "32 A100 for 7 days", CARD),
            ("quality", "nearly 90 % of medical statements judged right; the set is unnamed",
             FIRST_CARD),
            ("quality", "a statement is judged by its perplexity", HUB_CARD),
        ),
        known_issues=("Reads English first: Chinese takes two to three ids a hanzi.",),
        source="published layers, heads, width and length",
    ),
    ModelEntry(
        name="YuyuanQA-GPT2-3.5B", paper_number=47,
        series=Series.YUYUAN, demand=Demand.SPECIAL, task=Task.DOMAIN, family=Family.GENERATE,
        architecture="gpt2",
        config={**GPT2_3B, "prompt_template": "Question:{text} answer:"},
        num_parameters=3_500_000_000, size_note=GPT2_3B_NOTE, built_parameters=GPT2_3B_BUILT,
        max_tokens=1024, objective=ObjectiveName.SFT, tokenizer="byte_bpe",
        languages=("en",),
        hub_id="IDEA-CCNL/YuyuanQA-GPT2-3.5B", parent="Yuyuan-GPT2-3.5B",
        card=f"{DOCUMENTS}/余元系列/YuyuanQA-GPT2-3.5B.md",
        claims=claims(
            ("data", "medical: 10,000 question and answer pairs, cleaned from MedQuAD", CARD),
            ("compute", "16 A100", CARD),
            ("prompt", "`Question:{question} answer:`", CARD),
        ),
        scores=(
            *_bleu("BLEU", 0.357727, 0.2713, 0.22304, 0.19099),
            *_bleu("BLEU, Fengshen's framework", 0.524, 0.522, 0.489, 0.448),
            *_bleu("smoothed BLEU, Fengshen's framework", 0.718, 0.652, 0.586, 0.526),
            *_bleu("BLEU, Megatron", 0.532, 0.511, 0.470, 0.431),
            *_bleu("smoothed BLEU, Megatron", 0.776, 0.675, 0.590, 0.523),
        ),
        known_issues=(
            "The card compares two frameworks with BLEU of 0.52 and more and gives 0.36 for the "
            "same model further down.",
        ),
        source="published layers, heads, width and length",
    ),
)  # fmt: skip
