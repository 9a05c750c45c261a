# SPDX-License-Identifier: Apache-2.0
"""Erlangshen (二郎神): MegatronBert and RoBERTa, pretrained and fine-tuned. Data only.

The other Erlangshen models are in `erlangshen_deberta`, `erlangshen_structures` and
`erlangshen_tasks`.
"""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry
from pyfsb.registry.facts import (
    BASE,
    BASE_SIZE_NOTE,
    BERT,
    CARD,
    DOCUMENTS,
    FIRST_CARD,
    LARGE,
    LARGE_SIZE_NOTE,
    README,
    UNSAID,
    WUDAO_180,
    WUDAO_300,
    claims,
    scores,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_MEGATRON_1B: Final[ConfigValues] = {
    **BERT,
    "vocab_size": 21248,
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "intermediate_size": 8192,
    "hidden_act": "gelu_new",
}
_MEGATRON_1B_NOTE: Final = (
    "The layers and the vocabulary of the published config.json have 1.26 B; the name rounds up."
)
_ROBERTA_ISSUE: Final = (
    "Named RoBERTa, but is a BERT: it loads with the Bert classes and tokenizer only."
)
_MEGATRON_ISSUE: Final = "Loaded as plain BERT it loses the norm weights of each layer (FS#12)."

PRETRAINED: Final = (
    ModelEntry(
        name="Erlangshen-MegatronBert-1.3B", paper_number=8,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="megatron-bert", config=_MEGATRON_1B,
        num_parameters=1_300_000_000, size_note=_MEGATRON_1B_NOTE,
        built_parameters=1_257_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD,
        other_objectives=(ObjectiveName.KNOWLEDGE_MASKING, ObjectiveName.SENTENCE_ORDER),
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-MegatronBert-1.3B",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-MegatronBert-1.3B.md",
        other_hub_ids=("IDEA-CCNL/Erlangshen-1.3B",),
        legacy_names=("Erlangshen-1.3B", "二郎神-1.3B"),
        claims=claims(
            ("corpus", "280 GB", README), WUDAO_180,
            ("compute", "32 A100 for 14 days", CARD),
            ("training", "1.8 M steps of 1,024 rows of 512 tokens", "FS#39"),
            ("compute", "four machines of 8, joined by InfiniBand", "FS#57"),
            ("training", "peak learning rate 1e-4, linear to 1e-5 over 1.6 M steps, 1 % warm-up, "
             "weight decay 0.01, clipped at 1, fp16", "FS#39"),
            ("structure", "norms before the sublayers (Pre-LN)", CARD),
            ("ranking", "first of FewCLUE on 2021-11-10, first of ZeroCLUE on 2022-01-24", CARD),
            ("ranking", "first of CLUE's semantic matching on 2022-07-10", CARD),
        ),
        scores=scores(
            {
                "afqmc": 0.7608, "tnews": 0.5996, "iflytek": 0.6234, "ocnli": 0.7917,
                "cmnli": 0.81, "wsc": 0.9243, "csl": 0.872,
            },
            CARD, split=UNSAID,
        ),
        known_issues=(_MEGATRON_ISSUE,),
        unknown=(
            "Knowledge-based masking is named in one sentence and was never published.",
            "How the three objectives were mixed.",
        ),
        source="published config.json",
    ),
    ModelEntry(
        name="Erlangshen-MegatronBert-3.9B-Chinese", paper_number=12,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="megatron-bert",
        config={
            **BERT, "vocab_size": 21248, "hidden_size": 2560, "num_hidden_layers": 48,
            "num_attention_heads": 40, "intermediate_size": 10240,
        },
        num_parameters=3_900_000_000,
        size_note="The layers and the vocabulary of the published config.json have 3.84 B.",
        built_parameters=3_839_000_000,
        max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD,
        other_objectives=(ObjectiveName.KNOWLEDGE_MASKING, ObjectiveName.SENTENCE_ORDER),
        tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-MegatronBert-3.9B-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-MegatronBert-3.9B-Chinese.md",
        aliases=("Erlangshen-MegatronBert-3.9B", "二郎神-3.9B"),
        claims=claims(
            WUDAO_300, ("compute", "64 A100-40G for 30 days", CARD),
            ("size", "39 B in one sentence, 3.9 B in the others", CARD),
            ("training", "pipeline and data parallel on Megatron-DeepSpeed; else as the 1.3B",
             "FS#144"),
        ),
        scores=scores(
            {
                "afqmc": 0.7561, "tnews": 0.6048, "iflytek": 0.6204, "ocnli": 0.8278,
                "cmnli": 0.8517,
            },
            CARD, split=UNSAID,
        ),
        known_issues=(_MEGATRON_ISSUE,),
        source="published config.json",
    ),
)  # fmt: skip


_BACKBONES: Final[dict[str, dict[str, object]]] = {
    "Roberta-110M": {
        "architecture": "bert", "config": {**BERT, **BASE}, "num_parameters": 110_000_000,
        "size_note": BASE_SIZE_NOTE, "built_parameters": 102_300_000,
        "parent": "hfl/chinese-roberta-wwm-ext", "known_issues": (_ROBERTA_ISSUE,),
        "source": "published config.json of its parent",
    },
    "Roberta-330M": {
        "architecture": "bert", "config": {**BERT, **LARGE}, "num_parameters": 330_000_000,
        "size_note": LARGE_SIZE_NOTE, "built_parameters": 325_500_000,
        "parent": "hfl/chinese-roberta-wwm-ext-large", "known_issues": (_ROBERTA_ISSUE,),
        "source": "published config.json of its parent",
    },
    "MegatronBert-1.3B": {
        "architecture": "megatron-bert", "config": _MEGATRON_1B,
        "num_parameters": 1_300_000_000, "size_note": _MEGATRON_1B_NOTE,
        "built_parameters": 1_257_000_000, "parent": "Erlangshen-MegatronBert-1.3B",
        "known_issues": (_MEGATRON_ISSUE,), "source": "published config.json",
    },
}  # fmt: skip
_TASKS: Final[dict[str, tuple[Family, tuple[str, ...], tuple[str, str, str]]]] = {
    "NLI": (
        Family.PAIR, ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"),
        ("data", "1,014,787 rows of 4 Chinese NLI sets, which are public by the first version",
         CARD),
    ),
    "Sentiment": (
        Family.CLASSIFY, ("Negative", "Positive"),
        ("data", "227,347 rows of 8 Chinese sentiment sets", CARD),
    ),
    "Similarity": (
        Family.PAIR, ("not similarity", "similarity"),
        ("data", "2,773,880 rows of 20 Chinese paraphrase sets", CARD),
    ),
}  # fmt: skip
_NAMED_PARENTS: Final = {
    "Roberta-110M": (
        ("base", "hfl/chinese-roberta-wwm-ext-base", CARD),
        ("base", "hfl/chinese-roberta-wwm-ext for both Roberta sizes", FIRST_CARD),
    ),
    "Roberta-330M": (
        ("base", "hfl/chinese-roberta-wwm-ext-large", CARD),
        ("base", "hfl/chinese-roberta-wwm-ext for both Roberta sizes", FIRST_CARD),
    ),
    "MegatronBert-1.3B": (("base", "Erlangshen-MegatronBert-1.3B", CARD),),
}
_SEEN: Final = (
    "Its authors say that rows of the dev sets of BUSTM and AFQMC may have been in the training "
    "sets (first version of the model card)."
)


def _finetuned(
    number: int, backbone: str, task: str, values: dict[str, float],
    *more_claims: tuple[str, str, str], **changes: object,
) -> ModelEntry:  # fmt: skip
    """Return one of the nine fine-tuned models: three sizes of backbone, three tasks.

    The first version of their cards says that the scores are those of dev rows, the last does not.
    """
    family, labels, data = _TASKS[task]
    name = f"Erlangshen-{backbone}-{task}"
    return ModelEntry.model_validate(
        {
            "name": name,
            "paper_number": number,
            "series": Series.ERLANGSHEN,
            "demand": Demand.GENERAL,
            "task": Task.NLU,
            "family": family,
            "max_tokens": 512,
            "objective": ObjectiveName.WHOLE_WORD,
            "tokenizer": "wordpiece",
            "labels": labels,
            "hub_id": f"IDEA-CCNL/{name}",
            "card": f"{DOCUMENTS}/二郎神系列/{name}.md",
            "claims": claims(data, *_NAMED_PARENTS[backbone], *more_claims),
            "scores": scores(values, FIRST_CARD),
            "our_choices": ("objective: what further pretraining of the backbone would use",),
            **_BACKBONES[backbone],
            **changes,
        }
    )


FINETUNED: Final = (
    _finetuned(9, "MegatronBert-1.3B", "NLI", {"cmnli": 0.8452, "ocnli": 0.8417, "snli": 0.8867}),
    _finetuned(
        10, "MegatronBert-1.3B", "Sentiment",
        {"asap_sent": 0.981, "asap_aspect": 0.978, "chnsenticorp": 0.97},
    ),
    _finetuned(
        11, "MegatronBert-1.3B", "Similarity", {"bq": 0.8631},
        ("ranking", "first of CLUE's semantic matching on 2022-07-10 (arXiv:2208.02959)", CARD),
    ),
    _finetuned(13, "Roberta-110M", "NLI", {"cmnli": 0.8083, "ocnli": 0.7856, "snli": 0.8801}),
    _finetuned(
        14, "Roberta-110M", "Sentiment",
        {"asap_sent": 0.9777, "asap_aspect": 0.9731, "chnsenticorp": 0.9661},
    ),
    _finetuned(
        15, "Roberta-110M", "Similarity", {"bq": 0.8541, "bustm": 0.9518, "afqmc": 0.8172},
        known_issues=(_ROBERTA_ISSUE, _SEEN),
    ),
    _finetuned(16, "Roberta-330M", "NLI", {"cmnli": 0.8225, "ocnli": 0.7982, "snli": 0.88}),
    _finetuned(
        17, "Roberta-330M", "Sentiment",
        {"asap_sent": 0.979, "asap_aspect": 0.9751, "chnsenticorp": 0.9666},
    ),
    _finetuned(
        18, "Roberta-330M", "Similarity", {"bq": 0.8621, "bustm": 0.9929, "afqmc": 0.9389},
        known_issues=(
            _ROBERTA_ISSUE, f"{_SEEN} Its 0.94 and 0.99 are far above every other model's.",
        ),
    ),
)  # fmt: skip

ENTRIES: Final = (*PRETRAINED, *FINETUNED)
