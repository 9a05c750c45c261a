# SPDX-License-Identifier: Apache-2.0
"""Erlangshen (二郎神): Longformer and ZEN, whose architectures are our own. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry
from pyfsb.registry.facts import (
    BASE,
    BASE_SIZE_NOTE,
    BERT,
    CARD,
    LARGE,
    LARGE_SIZE_NOTE,
    WUDAO_180,
    claims,
    scores,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_LONGFORMER: Final[ConfigValues] = {
    **BERT,
    "max_position_embeddings": 4096,
    "attention_window": 512,
}
_LONGFORMER_UNKNOWN: Final = (
    "The attention window, and whether it differs by layer.",
    "The vocabulary and the longest input in pretraining.",
)
_LONGFORMER_CHOICES: Final = (
    "attention_window = 512 and 4,096 positions: those of the English Longformer",
    "vocab_size = 21,128: the tokenizer is a BertTokenizer, and the counts then fit the names as "
    "those of the family's other base and large encoders do",
)
_ZEN_KNOWN: Final = (
    "The n-gram lexicon ngram.txt belongs to the weights: without it the model is a plain BERT.",
)

ENTRIES: Final = (
    ModelEntry(
        name="Erlangshen-Longformer-110M", paper_number=6,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="rope-longformer", config={**_LONGFORMER, **BASE},
        num_parameters=110_000_000, size_note=BASE_SIZE_NOTE, built_parameters=101_900_000,
        max_tokens=4096,
        objective=ObjectiveName.TOKEN_MLM, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-Longformer-110M",
        parent="chinese_roformer_L-12_H-768_A-12",
        claims=claims(WUDAO_180, ("base", "Chinese RoFormer, 12 layers of 768", CARD)),
        unknown=_LONGFORMER_UNKNOWN, our_choices=_LONGFORMER_CHOICES,
        source="layers and widths derived from the name; rest our choice",
    ),
    ModelEntry(
        name="Erlangshen-Longformer-330M", paper_number=7,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="rope-longformer", config={**_LONGFORMER, **LARGE},
        num_parameters=330_000_000, size_note=LARGE_SIZE_NOTE, built_parameters=325_000_000,
        max_tokens=4096,
        objective=ObjectiveName.TOKEN_MLM, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-Longformer-330M",
        claims=claims(
            WUDAO_180,
            ("base", "Chinese RoFormer, 12 layers of 768, which cannot be: it has 24 of 1,024",
             CARD),
        ),
        unknown=_LONGFORMER_UNKNOWN, our_choices=_LONGFORMER_CHOICES,
        source="layers and widths derived from the name; rest our choice",
    ),
    ModelEntry(
        name="Erlangshen-ZEN1-224M-Chinese", paper_number=21,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="zen1",
        config={**BERT, **BASE, "num_hidden_word_layers": 6, "word_size": 104089},
        num_parameters=224_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, other_objectives=(ObjectiveName.SENTENCE_ORDER,),
        tokenizer="ngram_wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-ZEN1-224M-Chinese",
        claims=claims(
            ("lexicon", "about 104,000 n-grams of 2 to 7 pieces, 128 a sequence at most",
             "documentation"),
        ),
        scores=(
            *scores({"tnews": 0.5682}, CARD),
            *scores({"ontonotes4": 0.808}, CARD, metric="F1", split="unsaid"),
        ),
        known_issues=(
            *_ZEN_KNOWN,
            "The published heads hand the attention mask to the n-grams' token types, so they mask "
            "nothing; only the pretraining class does.",
        ),
        unknown=("Corpus and compute.", "The exact number of n-grams."),
        our_choices=("word_size = 104,089: from the count, about 104,000",),
        source="derived from the published parameter count",
    ),
    ModelEntry(
        name="Erlangshen-ZEN2-345M-Chinese", paper_number=22,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="zen2",
        config={**BERT, **BASE, "num_hidden_word_layers": 6, "word_size": 261413},
        num_parameters=345_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, other_objectives=(ObjectiveName.SENTENCE_ORDER,),
        tokenizer="ngram_wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-ZEN2-345M-Chinese",
        scores=(
            *scores(
                {
                    "afqmc": 0.741, "tnews": 0.584, "iflytek": 0.599, "ocnli": 0.788,
                    "cmnli": 0.80,
                },
                CARD,
            ),
            *scores(
                {"weibo_ner": 0.6526, "resume_ner": 0.9603, "msra_ner": 0.9515,
                 "ontonotes4": 0.7893},
                CARD, metric="F1", split="test",
            ),
            *scores({"cmeee": 0.6281, "cluener": 0.7927}, CARD, metric="F1"),
        ),
        known_issues=_ZEN_KNOWN,
        unknown=("Corpus and compute.", "The exact number of n-grams."),
        our_choices=("word_size = 261,413: from the counts of both sizes, about 261,000",),
        source="derived from the published parameter count",
    ),
    ModelEntry(
        name="Erlangshen-ZEN2-668M-Chinese", paper_number=23,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="zen2",
        config={**BERT, **LARGE, "num_hidden_word_layers": 6, "word_size": 261413},
        num_parameters=668_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, other_objectives=(ObjectiveName.SENTENCE_ORDER,),
        tokenizer="ngram_wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-ZEN2-668M-Chinese",
        scores=(
            *scores(
                {"afqmc": 0.75, "tnews": 0.60, "iflytek": 0.589, "ocnli": 0.81, "cmnli": 0.82},
                CARD,
            ),
            *scores(
                {"weibo_ner": 0.7002, "resume_ner": 0.9608, "msra_ner": 0.9513,
                 "ontonotes4": 0.8089},
                CARD, metric="F1", split="test",
            ),
            *scores({"cmeee": 0.6337, "cluener": 0.7922}, CARD, metric="F1"),
        ),
        known_issues=_ZEN_KNOWN,
        unknown=("Corpus and compute.", "The exact number of n-grams."),
        our_choices=("word_size = 261,413: from the counts of both sizes, about 261,000",),
        source="derived from the published parameter count",
    ),
)  # fmt: skip
