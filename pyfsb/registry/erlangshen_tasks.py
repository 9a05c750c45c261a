# SPDX-License-Identifier: Apache-2.0
"""Erlangshen (二郎神): UBERT for extraction and UniMC for multiple choice. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry, Score
from pyfsb.registry.facts import (
    BASE,
    BASE_SIZE_NOTE,
    BERT,
    CARD,
    DOCUMENTS,
    EXAMPLES,
    LARGE,
    LARGE_SIZE_NOTE,
    UNSAID,
    claims,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_UNIMC_CARD: Final = f"{EXAMPLES}/unimc/README.md"
_FEWCLUE: Final = ("eprstmt", "csldcp", "tnews", "iflytek", "ocnli", "bustm", "chid", "csl", "wsc")
_UNIMC_DATA: Final = (
    ("data", "13 labelled sets for the published figures: c3, ClozeT, CMRC2019, GCRC, DuEE-Fin, "
     "DuEE1.0, Fudan, THUNEWS, CMNLI, SNLI, AFQMC, PAWS-X and STS-B", CARD),
    ("data", "48 labelled sets for the released weights", CARD),
    ("name", "size before UniMC, as in Erlangshen-RoBERTa-110M-UniMC-Chinese", CARD),
    ("name", "size behind UniMC, as in Erlangshen-UniMC-RoBERTa-110M-Chinese",
     f"{EXAMPLES}/tcbert/README.md"),
)  # fmt: skip
_UNIMC_CHOICES: Final = (
    "objective weights and rates of text masking: those of the published code",
)
_UNIMC_ISSUES: Final = (
    "Long lists of options are halved until they fit, down to empty and equal ones; give short "
    "aliases of at most two characters for over a hundred labels.",
)
_UBERT_CLAIMS: Final = (
    ("data", "1,065,069 rows of over 70 sets", CARD),
    ("ranking", "first of AIWIN 2022, insurance, few-shot multi-task, on both boards", CARD),
)
_UBERT_ISSUES: Final = (
    "A batch must have the same number of kinds in every row when predicting.",
    "Kinds are reordered and their number is cut when encoding for training.",
)


def _fewclue(few_shot: tuple[float, ...], zero_shot: tuple[float, ...]) -> tuple[Score, ...]:
    """Return the scores of the nine FewCLUE tasks and their mean, few-shot and zero-shot."""
    return tuple(
        Score(
            task="fewclue" if name == "mean" else f"fewclue_{name}",
            metric=f"accuracy, {kind}", value=round(value / 100, 6), source=CARD,
            split=UNSAID,
        )
        for kind, values in (("few-shot", few_shot), ("zero-shot", zero_shot))
        for name, value in zip((*_FEWCLUE, "mean"), values, strict=True)
    )  # fmt: skip


_UBERT_BASE: Final[ConfigValues] = {**BERT, **BASE, "biaffine_size": 256}
_UBERT_LARGE: Final[ConfigValues] = {**BERT, **LARGE, "biaffine_size": 256}

ENTRIES: Final = (
    ModelEntry(
        name="Erlangshen-Ubert-110M-Chinese", paper_number=19,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.EXTRACT,
        architecture="ubert", config=_UBERT_BASE,
        num_parameters=110_000_000, size_note=BASE_SIZE_NOTE, built_parameters=102_300_000,
        max_tokens=512,
        objective=ObjectiveName.EXTRACTION, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-Ubert-110M-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-Ubert-110M-Chinese.md",
        parent="hfl/chinese-macbert-base",
        claims=claims(*_UBERT_CLAIMS, ("base", "MacBERT-base", CARD)), known_issues=_UBERT_ISSUES,
        source="BERT-base; width of the biaffine head from the published base config",
    ),
    ModelEntry(
        name="Erlangshen-Ubert-330M-Chinese", paper_number=20,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.EXTRACT,
        architecture="ubert", config=_UBERT_LARGE,
        num_parameters=330_000_000, size_note=LARGE_SIZE_NOTE, built_parameters=325_500_000,
        max_tokens=512,
        objective=ObjectiveName.EXTRACTION, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-Ubert-330M-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-Ubert-330M-Chinese.md",
        parent="hfl/chinese-macbert-large",
        claims=claims(*_UBERT_CLAIMS, ("base", "MacBERT-large", CARD)),
        known_issues=_UBERT_ISSUES,
        unknown=("The width of the biaffine head of this size.",),
        our_choices=("biaffine_size = 256: that of the base size",),
        source="BERT-large; width of the head our choice",
    ),
    ModelEntry(
        name="Erlangshen-UniMC-RoBERTa-110M-Chinese",
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.CHOOSE,
        architecture="bert", config={**BERT, **BASE},
        num_parameters=110_000_000, size_note=BASE_SIZE_NOTE, built_parameters=102_300_000,
        max_tokens=512,
        objective=ObjectiveName.MULTIPLE_CHOICE, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-UniMC-RoBERTa-110M-Chinese",
        card=_UNIMC_CARD,
        other_hub_ids=("IDEA-CCNL/Erlangshen-RoBERTa-110M-UniMC-Chinese",),
        parent="hfl/chinese-roberta-wwm-ext",
        claims=claims(*_UNIMC_DATA),
        scores=_fewclue(
            (88.64, 54.08, 54.32, 48.6, 66.55, 73.76, 67.71, 52.54, 59.92, 62.86),
            (86.16, 31.26, 46.61, 26.54, 66.91, 73.34, 66.68, 50.09, 53.66, 55.7),
        ),
        known_issues=_UNIMC_ISSUES, our_choices=_UNIMC_CHOICES,
        source="its backbone's config; the options need a mask and positions, no module",
    ),
    ModelEntry(
        name="Erlangshen-UniMC-RoBERTa-330M-Chinese",
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.CHOOSE,
        architecture="bert", config={**BERT, **LARGE},
        num_parameters=330_000_000, size_note=LARGE_SIZE_NOTE, built_parameters=325_500_000,
        max_tokens=512,
        objective=ObjectiveName.MULTIPLE_CHOICE, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-UniMC-RoBERTa-330M-Chinese",
        card=_UNIMC_CARD,
        other_hub_ids=("IDEA-CCNL/Erlangshen-RoBERTa-330M-UniMC-Chinese",),
        parent="hfl/chinese-roberta-wwm-ext-large",
        claims=claims(*_UNIMC_DATA),
        scores=_fewclue(
            (89.53, 57.3, 54.25, 50.0, 70.59, 77.49, 78.09, 55.73, 65.16, 66.46),
            (87.5, 30.4, 47.6, 31.5, 69.9, 75.9, 78.17, 49.5, 60.55, 59.01),
        ),
        known_issues=_UNIMC_ISSUES, our_choices=_UNIMC_CHOICES,
        source="its backbone's config; the options need a mask and positions, no module",
    ),
    ModelEntry(
        name="Erlangshen-UniMC-MegatronBERT-1.3B-Chinese",
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.CHOOSE,
        architecture="megatron-bert",
        config={
            **BERT, "vocab_size": 21248, "hidden_size": 2048, "num_hidden_layers": 24,
            "num_attention_heads": 8, "intermediate_size": 8192, "hidden_act": "gelu_new",
        },
        num_parameters=1_300_000_000,
        size_note="The layers and the vocabulary of its backbone have 1.26 B; the name rounds up.",
        built_parameters=1_257_000_000,
        max_tokens=512,
        objective=ObjectiveName.MULTIPLE_CHOICE, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-UniMC-MegatronBERT-1.3B-Chinese",
        card=_UNIMC_CARD,
        other_hub_ids=("IDEA-CCNL/Erlangshen-MegatronBERT-1.3B-UniMC-Chinese",),
        parent="Erlangshen-MegatronBert-1.3B",
        claims=claims(*_UNIMC_DATA),
        scores=_fewclue(
            (89.278, 60.9, 57.46, 52.89, 76.33, 80.37, 90.33, 61.73, 79.15, 72.05),
            (88.79, 42.06, 55.21, 33.93, 75.57, 79.5, 89.4, 50.25, 66.67, 64.53),
        ),
        known_issues=_UNIMC_ISSUES, our_choices=_UNIMC_CHOICES,
        source="its backbone's config; the options need a mask and positions, no module",
    ),
)  # fmt: skip
