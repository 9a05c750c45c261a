# SPDX-License-Identifier: Apache-2.0
"""Erlangshen (二郎神): Longformer and ZEN, whose architectures are our own. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry
from pyfsb.registry.facts import (
    BASE,
    BERT,
    CARD,
    DOCUMENTS,
    HUB_FILES,
    LARGE,
    UNSAID,
    WUDAO_180,
    claims,
    scores,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_LONGFORMER: Final[ConfigValues] = {
    **BERT,
    "vocab_size": 12000,
    "max_position_embeddings": 4096,
    "attention_window": 128,
}
_DESCENDANT: Final = "config.json of hw2942's fine-tuned Erlangshen-Longformer-110M on the hub"
"""A fine-tuned model keeps the fields of the published config, which is not shown itself."""
_LONGFORMER_UNKNOWN: Final = ("The longest input in pretraining.",)
_ZEN_CONFIG: Final = "published config.json"
_ZEN_OBJECTIVE: Final = "objectives: those of ZEN's own paper; the cards name none"
_ZEN_KNOWN: Final = (
    "The n-gram lexicon ngram.txt belongs to the weights: without it the model is a plain BERT.",
)

ENTRIES: Final = (
    ModelEntry(
        name="Erlangshen-Longformer-110M", paper_number=6,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="rope-longformer", config={**_LONGFORMER, **BASE},
        num_parameters=110_000_000,
        size_note=(
            "Named after English BERT-base's 110 M; with the 12,000 pieces of the Chinese RoFormer "
            "over characters it is 95 M, as the 380 MB of its weights are."
        ),
        built_parameters=94_900_000, max_tokens=4096,
        objective=ObjectiveName.TOKEN_MLM, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-Longformer-110M",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-Longformer-110M.md",
        parent="chinese_roformer_L-12_H-768_A-12",
        claims=claims(
            WUDAO_180, ("base", "Chinese RoFormer, 12 layers of 768", CARD),
            ("vocabulary", "12,000 pieces", _DESCENDANT),
            ("attention", "windows of 128 in each of 12 layers, 4,096 positions", _DESCENDANT),
        ),
        unknown=_LONGFORMER_UNKNOWN,
        source=_DESCENDANT,
    ),
    ModelEntry(
        name="Erlangshen-Longformer-330M", paper_number=7,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="rope-longformer", config={**_LONGFORMER, **LARGE},
        num_parameters=330_000_000,
        size_note=(
            "Named after English BERT-large; with the 12,000 pieces of the Chinese RoFormer over "
            "characters it is 316 M, as the 1.26 GB of its weights are."
        ),
        built_parameters=315_700_000, max_tokens=4096,
        objective=ObjectiveName.TOKEN_MLM, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-Longformer-330M",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-Longformer-330M.md",
        claims=claims(
            WUDAO_180, ("base", "Chinese RoFormer, 12 layers of 768, as of the 110M", CARD),
            ("vocabulary", "a vocab.txt of 53.5 kB, as that of the 110M", HUB_FILES),
        ),
        known_issues=(
            "The card names the base of the 110M, of 12 layers of 768, for its 24 layers of 1,024.",
        ),
        unknown=(*_LONGFORMER_UNKNOWN, "The attention window of this size."),
        our_choices=("attention_window = 128 and 4,096 positions: those of the 110M",),
        source="widths derived from the name and the weights' size; windows our choice",
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
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-ZEN1-224M-Chinese.md",
        claims=claims(
            ("lexicon", "a table of 104,089 rows", _ZEN_CONFIG),
            ("lexicon", "n-grams of 2 to 7 pieces, 128 a sequence at most",
             "IDEA-CCNL/Fengshenbang-LM: fengshen/models/zen1"),
        ),
        scores=(
            *scores({"tnews": 0.5682}, CARD, split=UNSAID),
            *scores({"ontonotes4": 0.808}, CARD, metric="F1", split=UNSAID),
        ),
        known_issues=(
            *_ZEN_KNOWN,
            "The published heads hand the attention mask to the n-grams' token types, so they mask "
            "nothing; only the pretraining class does.",
        ),
        unknown=("Corpus and compute.",),
        our_choices=(_ZEN_OBJECTIVE,),
        source=_ZEN_CONFIG,
    ),
    ModelEntry(
        name="Erlangshen-ZEN2-345M-Chinese", paper_number=22,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="zen2",
        config={**BERT, **BASE, "num_hidden_word_layers": 6, "word_size": 261361},
        num_parameters=345_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, other_objectives=(ObjectiveName.SENTENCE_ORDER,),
        tokenizer="ngram_wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-ZEN2-345M-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-ZEN2-345M-Chinese.md",
        scores=(
            *scores(
                {
                    "afqmc": 0.741, "tnews": 0.584, "iflytek": 0.599, "ocnli": 0.788,
                    "cmnli": 0.80,
                },
                CARD, split=UNSAID,
            ),
            *scores(
                {"weibo_ner": 0.6526, "resume_ner": 0.9603, "msra_ner": 0.9515,
                 "ontonotes4": 0.7893},
                CARD, metric="F1", split="test",
            ),
            *scores({"cmeee": 0.6281, "cluener": 0.7927}, CARD, metric="F1"),
        ),
        known_issues=_ZEN_KNOWN,
        unknown=("Corpus and compute.",),
        our_choices=(
            "word_size = 261,361: that of the larger size, whose ngram.txt of 3.29 MB it shares",
            _ZEN_OBJECTIVE,
        ),
        source="derived from the published parameter count and files",
    ),
    ModelEntry(
        name="Erlangshen-ZEN2-668M-Chinese", paper_number=23,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="zen2",
        config={**BERT, **LARGE, "num_hidden_word_layers": 6, "word_size": 261361},
        num_parameters=668_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, other_objectives=(ObjectiveName.SENTENCE_ORDER,),
        tokenizer="ngram_wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-ZEN2-668M-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-ZEN2-668M-Chinese.md",
        scores=(
            *scores(
                {"afqmc": 0.75, "tnews": 0.60, "iflytek": 0.589, "ocnli": 0.81, "cmnli": 0.82},
                CARD, split=UNSAID,
            ),
            *scores(
                {"weibo_ner": 0.7002, "resume_ner": 0.9608, "msra_ner": 0.9513,
                 "ontonotes4": 0.8089},
                CARD, metric="F1", split="test",
            ),
            *scores({"cmeee": 0.6337, "cluener": 0.7922}, CARD, metric="F1"),
        ),
        known_issues=_ZEN_KNOWN,
        claims=claims(("lexicon", "a table of 261,361 rows", _ZEN_CONFIG)),
        unknown=("Corpus and compute.",), our_choices=(_ZEN_OBJECTIVE,),
        source=_ZEN_CONFIG,
    ),
)  # fmt: skip
