# SPDX-License-Identifier: Apache-2.0
"""Erlangshen (二郎神): the five DeBERTa-v2. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValues, ModelEntry
from pyfsb.registry.facts import (
    BASE,
    CARD,
    DOCUMENTS,
    HUB_FILES,
    LARGE,
    WUDAO_180,
    claims,
    scores,
)
from pyfsb.registry.taxonomy import Demand, Series, Task

_DEBERTA_V2: Final[ConfigValues] = {
    "type_vocab_size": 0,
    "vocab_size": 12800,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "c2p|p2c",
    "conv_kernel_size": 3,
    "conv_act": "gelu",
    "max_relative_positions": -1,
    "position_biased_input": False,
}
_TOKENIZER_ISSUE: Final = "The default DebertaV2 tokenizer is wrong for it: it is a BertTokenizer."
_CARD_320M: Final = "model card of Erlangshen-DeBERTa-v2-320M-Chinese"
_TNEWS: Final = "dev of TNEWS 1.1"
"""As the cards name it; CLUE's first TNEWS has other rows."""
_UNSTABLE: Final = "A third party reports unstable scores of fine-tunings (FS#471)."

ENTRIES: Final = (
    ModelEntry(
        name="Erlangshen-DeBERTa-v2-97M-Chinese", paper_number=5,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="deberta-v2", config={**_DEBERTA_V2, **BASE},
        num_parameters=97_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-DeBERTa-v2-97M-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-DeBERTa-v2-97M-Chinese.md",
        aliases=("Erlangshen-DeBERTa-v2-97M",),
        claims=claims(
            WUDAO_180, ("compute", "24 A100 for 7 days", CARD),
            ("compute", "24 A100-40G for 7 days, 1 billion samples",
             "IDEA-CCNL/Fengshenbang-LM: fengshen/workspace/erlangshen-deberta-base/pretrain"),
        ),
        scores=(
            *scores({"ocnli": 0.752, "cmnli": 0.807}, CARD),
            *scores(
                {"afqmc": 0.7405, "iflytek": 0.5977, "ocnli": 0.7568, "cmnli": 0.807}, _CARD_320M
            ),
            *scores({"tnews": 0.571}, _CARD_320M, split=_TNEWS),
        ),
        known_issues=(_TOKENIZER_ISSUE, _UNSTABLE),
        source="published config.json",
    ),
    ModelEntry(
        name="Erlangshen-DeBERTa-v2-97M-CWS-Chinese", paper_number=4,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="deberta-v2", config={**_DEBERTA_V2, **BASE},
        num_parameters=97_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-DeBERTa-v2-97M-CWS-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-DeBERTa-v2-97M-CWS-Chinese.md",
        aliases=("Erlangshen-DeBERTa-v2-97M-CWS",),
        claims=claims(
            WUDAO_180, ("compute", "24 A100 for 7 days", CARD),
            ("vocabulary", "a vocab.txt of 53.1 kB, as that of the 97M without segmentation",
             HUB_FILES),
        ),
        known_issues=(_TOKENIZER_ISSUE,),
        unknown=("Which segmenter cut the words.",),
        our_choices=(
            "config: that of the 97M without segmentation, whose count and size of weights "
            "(388 MB) it shares",
        ),
        source="derived from the published parameter count and files",
    ),
    ModelEntry(
        name="Erlangshen-DeBERTa-v2-186M-Chinese-SentencePiece", paper_number=1,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="deberta-v2", config={**_DEBERTA_V2, **BASE, "vocab_size": 128100},
        num_parameters=186_000_000, max_tokens=512,
        objective=ObjectiveName.TOKEN_MLM, tokenizer="sentencepiece",
        hub_id="IDEA-CCNL/Erlangshen-DeBERTa-v2-186M-Chinese-SentencePiece",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-DeBERTa-v2-186M-Chinese-SentencePiece.md",
        aliases=("Erlangshen-DeBERTa-v2-186M",),
        claims=claims(
            WUDAO_180, ("compute", "8 RTX 3090 Ti for 21 days", CARD),
            ("vocabulary", "about 128,000 pieces", CARD),
            ("vocabulary", "<mask> is added as id 128,000", HUB_FILES),
        ),
        scores=scores({"ocnli": 0.7625, "cmnli": 0.81}, CARD),
        unknown=(
            "The rows of its embedding: at least 128,001, for <mask> stands behind the pieces.",
        ),
        our_choices=(
            "vocab_size = 128,100: that of the English DeBERTa-v2, which has 128,000 pieces and an "
            "added mask too",
            "objective: pieces cross words, so single tokens are masked",
        ),
        source="97M's layers; derived from the published parameter count",
    ),
    ModelEntry(
        name="Erlangshen-DeBERTa-v2-320M-Chinese", paper_number=2,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="deberta-v2", config={**_DEBERTA_V2, **LARGE},
        num_parameters=320_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-DeBERTa-v2-320M-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-DeBERTa-v2-320M-Chinese.md",
        aliases=("Erlangshen-DeBERTa-v2-320M",),
        claims=claims(WUDAO_180, ("compute", "8 A100-80G for 7 days", CARD)),
        scores=(
            *scores(
                {"afqmc": 0.7498, "iflytek": 0.6042, "ocnli": 0.8022, "cmnli": 0.8301}, CARD
            ),
            *scores({"tnews": 0.5817}, CARD, split=_TNEWS),
        ),
        known_issues=(_TOKENIZER_ISSUE, _UNSTABLE),
        source="derived from the published parameter count",
    ),
    ModelEntry(
        name="Erlangshen-DeBERTa-v2-710M-Chinese", paper_number=3,
        series=Series.ERLANGSHEN, demand=Demand.GENERAL, task=Task.NLU, family=Family.FILL_MASK,
        architecture="deberta-v2",
        config={
            **_DEBERTA_V2, "hidden_size": 1536, "num_hidden_layers": 24,
            "num_attention_heads": 24, "intermediate_size": 6144,
        },
        num_parameters=710_000_000, max_tokens=512,
        objective=ObjectiveName.WHOLE_WORD, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Erlangshen-DeBERTa-v2-710M-Chinese",
        card=f"{DOCUMENTS}/二郎神系列/Erlangshen-DeBERTa-v2-710M-Chinese.md",
        aliases=("Erlangshen-DeBERTa-v2-710M",),
        claims=claims(WUDAO_180, ("compute", "24 A100-40G for 21 days", CARD)),
        scores=(
            *scores(
                {"afqmc": 0.7549, "iflytek": 0.6177, "ocnli": 0.8012, "cmnli": 0.8389}, _CARD_320M
            ),
            *scores({"tnews": 0.5873}, _CARD_320M, split=_TNEWS),
        ),
        known_issues=(_TOKENIZER_ISSUE,),
        source="derived from the published parameter count; sizes of DeBERTa-v2-xlarge",
    ),
)  # fmt: skip
