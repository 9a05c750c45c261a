# SPDX-License-Identifier: Apache-2.0
"""Which size and repository each row of the catalogue has whose class there is. Data only.

Rows by `heading/model/version`; an empty repository: none is known, give the weights as a folder.
Repositories beyond the list's own are in `HUB_PAGES` or `IN_PUBLIC_CODE`; what is not, rows say.
"""

from __future__ import annotations

from typing import Final

MODELS: Final[dict[str, tuple[str, str]]] = {
    "BERT/BERT-Base/base": ("bert-base", "google-bert/bert-base-chinese"),
    "BERT/BERT-wwm/base": ("bert-base", "hfl/chinese-bert-wwm"),
    "BERT/BERT-wwm-ext/base": ("bert-base", "hfl/chinese-bert-wwm-ext"),
    "BERT/bert-base-民事/base": ("bert-base", ""),
    "BERT/bert-base-刑事/base": ("bert-base", ""),
    "BERT/BAAI-JDAI-BERT/base": ("bert-base", ""),
    "BERT/FinBERT/base": ("bert-base", ""),
    "BERT/EduBERT/base": ("bert-base", ""),
    "BERT/guwenbert-base/base": ("classical-base", "ethanyt/guwenbert-base"),
    "BERT/guwenbert-large/large": ("classical-large", "ethanyt/guwenbert-large"),
    "BERT/BERT-CCPoem/small": ("bert-medium", ""),
    "RoBERTa/RoBERTa-tiny-clue/tiny": ("clue-tiny", "clue/roberta_chinese_clue_tiny"),
    "RoBERTa/RoBERTa-tiny-pair/tiny": ("clue-tiny", "clue/roberta_chinese_pair_tiny"),
    "RoBERTa/RoBERTa-tiny3L768-clue/tiny": (
        "clue-tiny-3-768", "clue/roberta_chinese_3L768_clue_tiny",
    ),
    "RoBERTa/RoBERTa-tiny3L312-clue/tiny": (
        "clue-tiny-3-312", "clue/roberta_chinese_3L312_clue_tiny",
    ),
    "RoBERTa/RoBERTa-large-pair/large": ("clue-large", "clue/roberta_chinese_pair_large"),
    "RoBERTa/RoBERTa-large-clue/large": ("clue-large", "clue/roberta_chinese_clue_large"),
    "RoBERTa/RBT3/3层base": ("bert-3-base", "hfl/rbt3"),
    "RoBERTa/RBTL3/3层large": ("bert-3-large", "hfl/rbtl3"),
    "RoBERTa/RBTL4/4层large": ("bert-4-large", ""),
    "RoBERTa/RBTL6/6层large": ("bert-6-large", ""),
    "RoBERTa/RoBERTa-wwm-ext/base": ("bert-base", "hfl/chinese-roberta-wwm-ext"),
    "RoBERTa/RoBERTa-wwm-ext-large/large": ("bert-large", "hfl/chinese-roberta-wwm-ext-large"),
    "RoBERTa/RoBERTa-base/base/brightmart": ("bert-base", ""),
    "RoBERTa/RoBERTa-Large/large": ("bert-large", ""),
    "RoBERTa/RoBERTa-tiny/tiny": ("bert-tiny", "uer/chinese_roberta_L-2_H-128"),
    "RoBERTa/RoBERTa-mini/mini": ("bert-mini", "uer/chinese_roberta_L-4_H-256"),
    "RoBERTa/RoBERTa-small/small": ("bert-small", "uer/chinese_roberta_L-4_H-512"),
    "RoBERTa/RoBERTa-medium/medium": ("bert-medium", "uer/chinese_roberta_L-8_H-512"),
    "RoBERTa/RoBERTa-base/base/DBIIR @ RUC": ("bert-base", "uer/chinese_roberta_L-12_H-768"),
    "ALBERT/Albert_tiny/tiny": ("albert-tiny", "voidful/albert_chinese_tiny"),
    "ALBERT/Albert_base_zh/base": ("albert-base", "voidful/albert_chinese_base"),
    "ALBERT/Albert_large_zh/large": ("albert-large", "voidful/albert_chinese_large"),
    "ALBERT/Albert_xlarge_zh/xlarge": ("albert-xlarge", "voidful/albert_chinese_xlarge"),
    "ALBERT/Albert_base/base": ("albert-base", ""),
    "ALBERT/Albert_large/large": ("albert-large", ""),
    "ALBERT/Albert_xlarge/xlarge": ("albert-xlarge", ""),
    "ALBERT/Albert_xxlarge/xxlarge": ("albert-xxlarge", "voidful/albert_chinese_xxlarge"),
    "MacBERT/MacBERT-base/base": ("bert-base", "hfl/chinese-macbert-base"),
    "MacBERT/MacBERT-large/large": ("bert-large", "hfl/chinese-macbert-large"),
    "WoBERT/WoBERT/base": ("word-base", ""),
    "WoBERT/WoBERT-plus/base": ("word-plus-base", ""),
    "XLNET/XLNet-base/base": ("xlnet-base", "hfl/chinese-xlnet-base"),
    "XLNET/XLNet-mid/middle": ("xlnet-mid", "hfl/chinese-xlnet-mid"),
    "XLNET/XLNet_zh_Large/large": ("xlnet-large", ""),
    "ELECTRA/ELECTRA-180g-large/large": (
        "electra-large", "hfl/chinese-electra-180g-large-discriminator",
    ),
    "ELECTRA/ELECTRA-180g-small-ex/small": (
        "electra-small-ex", "hfl/chinese-electra-180g-small-ex-discriminator",
    ),
    "ELECTRA/ELECTRA-180g-base/base": (
        "electra-base", "hfl/chinese-electra-180g-base-discriminator",
    ),
    "ELECTRA/ELECTRA-180g-small/small": (
        "electra-small", "hfl/chinese-electra-180g-small-discriminator",
    ),
    "ELECTRA/legal-ELECTRA-large/large": (
        "electra-large", "hfl/chinese-legal-electra-large-discriminator",
    ),
    "ELECTRA/legal-ELECTRA-base/base": (
        "electra-base", "hfl/chinese-legal-electra-base-discriminator",
    ),
    "ELECTRA/legal-ELECTRA-small/small": (
        "electra-small", "hfl/chinese-legal-electra-small-discriminator",
    ),
    "ELECTRA/ELECTRA-tiny/tiny": ("electra-tiny", ""),
    "ZEN/ZEN-Base/base": ("zen-base", ""),
    "ERNIE/ernie-1.0-base/base": ("ernie-base", "nghuyong/ernie-1.0-base-zh"),
    "ERNIE/ernie_1.0_skep_large/large": ("ernie-large", ""),
    "ERNIE/ernie-gram/base": ("ernie-base", "nghuyong/ernie-gram-zh"),
    "ERNIE3/ernie-3.0-base/12-layer, 768-hidden, 12-heads": (
        "ernie3-base", "nghuyong/ernie-3.0-base-zh",
    ),
    "ERNIE3/ernie-3.0-medium/6-layer, 768-hidden, 12-heads": (
        "ernie3-medium", "nghuyong/ernie-3.0-medium-zh",
    ),
    "ERNIE3/ernie-3.0-mini/6-layer, 384-hidden, 12-heads": (
        "ernie3-mini", "nghuyong/ernie-3.0-mini-zh",
    ),
    "ERNIE3/ernie-3.0-micro/4-layer, 384-hidden, 12-heads": (
        "ernie3-micro", "nghuyong/ernie-3.0-micro-zh",
    ),
    "ERNIE3/ernie-3.0-nano/4-layer, 312-hidden, 12-heads": (
        "ernie3-nano", "nghuyong/ernie-3.0-nano-zh",
    ),
    "RoFormer/roformer/base(L12)": ("roformer-base", "junnyu/roformer_chinese_base"),
    "RoFormer/roformer/small(L6)": ("roformer-small", "junnyu/roformer_chinese_small"),
    "RoFormer/roformer-char/base(L12)": (
        "roformer-char-base", "junnyu/roformer_chinese_char_base",
    ),
    "StructBERT/StructBERT/large(L24)": ("bert-large", ""),
    "Mengzi-BERT/Mengzi-BERT/base(L12)": ("bert-base", "Langboat/mengzi-bert-base"),
    "Mengzi-BERT/Mengzi-BERT-fin/base(L12)": ("bert-base", "Langboat/mengzi-bert-base-fin"),
    "Mengzi-BERT/bloom-6b4-zh/6B(L30)": ("bloom-zh", "Langboat/bloom-6b4-zh"),
    "TaCL/TaCL/base(L12)": ("bert-base", "cambridgeltl/tacl-bert-base-chinese"),
    "MC-BERT/MC-BERT/base(L12)": ("bert-base", ""),
    "PERT/PERT-base/base(12L)": ("bert-base", "hfl/chinese-pert-base"),
    "PERT/PERT-large/large(24L)": ("bert-large", "hfl/chinese-pert-large"),
    "MobileBERT/Chinese-MobileBERT-base-f2/base": ("mobile-base-f2", ""),
    "MobileBERT/Chinese-MobileBERT-base-f4/base": ("mobile-base-f4", ""),
    "MobileBERT/Chinese-MobileBERT-large-f2/large": ("mobile-large-f2", ""),
    "MobileBERT/Chinese-MobileBERT-large-f4/large": ("mobile-large-f4", ""),
    "GPT/CDial-GPTLCCC-base/base": ("gpt-chat", "thu-coai/CDial-GPT_LCCC-base"),
    "GPT/CDial-GPT2LCCC-base/base": ("gpt2-chat", "thu-coai/CDial-GPT2_LCCC-base"),
    "GPT/CDial-GPTLCCC-large/large": ("gpt-chat", "thu-coai/CDial-GPT_LCCC-large"),
    "GPT/GPT2-dialogue/base": ("gpt2-chitchat", ""),
    "GPT/GPT2-mmi/base": ("gpt2-chitchat", ""),
    "GPT/GPT2-散文模型/base": ("gpt2-prose", ""),
    "GPT/GPT2-诗词模型/base": ("gpt2-prose", ""),
    "GPT/GPT2-对话模型/base": ("gpt2-prose", ""),
    "GPT/roformer-gpt/base(L12)": ("roformer-char-base", ""),
    "CPM-Generate/CPM/26亿参数": ("cpm", "TsinghuaAI/CPM-Generate"),
    "T5/T5/small": ("t5-small-zh", "uer/t5-small-chinese-cluecorpussmall"),
    "T5-PEGASUS/T5 PEGASUS/base": ("t5-pegasus", "imxly/t5-pegasus"),
    "T5-PEGASUS/T5 PEGASUS/small": ("t5-pegasus-small", "imxly/t5-pegasus-small"),
    "Mengzi-T5/Mengzi-T5/base(L12)": ("mengzi-t5", "Langboat/mengzi-t5-base"),
    "BART/BART-base/base": ("bart-zh", "fnlp/bart-base-chinese"),
    "BART/BART-large/large": ("bart-zh-large", "fnlp/bart-large-chinese"),
    "UniLM/Unilm/base": ("bert-base", ""),
    "Simbert/SimBERT Tiny/tiny": ("simbert-tiny", ""),
    "Simbert/SimBERT Small/small": ("simbert-small", ""),
    "Simbert/SimBERT Base/base": ("simbert-base", ""),
    "RoFormer-sim/roformer-sim/base(L12)": (
        "roformer-sim-base", "junnyu/roformer_chinese_sim_char_base",
    ),
    "RoFormer-sim/roformer-sim/small(L6)": (
        "roformer-sim-small", "junnyu/roformer_chinese_sim_char_small",
    ),
    "Chinese-CLIP/Chinese-CLIP/base": ("clip-zh", "OFA-Sys/chinese-clip-vit-base-patch16"),
    "LERT/LERT-base/base": ("bert-base", "hfl/chinese-lert-base"),
    "LERT/LERT-large/large": ("bert-large", "hfl/chinese-lert-large"),
}  # fmt: skip
"""Size and Hugging Face repository by row; with the author where a row stands twice."""

HUB_PAGES: Final = frozenset(
    """
    clue/roberta_chinese_3L312_clue_tiny hfl/chinese-bert-wwm hfl/chinese-bert-wwm-ext
    hfl/chinese-electra-180g-base-discriminator hfl/chinese-electra-180g-large-discriminator
    hfl/chinese-electra-180g-small-discriminator hfl/chinese-legal-electra-small-discriminator
    hfl/chinese-lert-base hfl/chinese-lert-large hfl/chinese-macbert-base hfl/chinese-macbert-large
    hfl/chinese-roberta-wwm-ext hfl/chinese-roberta-wwm-ext-large hfl/rbt3 hfl/rbtl3
    imxly/t5-pegasus imxly/t5-pegasus-small junnyu/roformer_chinese_base
    junnyu/roformer_chinese_char_base junnyu/roformer_chinese_sim_char_base
    junnyu/roformer_chinese_sim_char_small OFA-Sys/chinese-clip-vit-base-patch16
    TsinghuaAI/CPM-Generate uer/chinese_roberta_L-12_H-768 uer/chinese_roberta_L-2_H-128
    uer/chinese_roberta_L-4_H-256 uer/chinese_roberta_L-8_H-512 voidful/albert_chinese_base
    voidful/albert_chinese_large voidful/albert_chinese_tiny voidful/albert_chinese_xlarge
    voidful/albert_chinese_xxlarge
    """.split()  # noqa: SIM905
)
"""Repositories whose page on the hub, or a page there that links them, was read."""

IN_PUBLIC_CODE: Final = frozenset(
    """
    clue/roberta_chinese_3L768_clue_tiny clue/roberta_chinese_clue_large
    clue/roberta_chinese_clue_tiny clue/roberta_chinese_pair_large clue/roberta_chinese_pair_tiny
    google-bert/bert-base-chinese hfl/chinese-electra-180g-small-ex-discriminator
    hfl/chinese-legal-electra-base-discriminator hfl/chinese-legal-electra-large-discriminator
    hfl/chinese-xlnet-base hfl/chinese-xlnet-mid junnyu/roformer_chinese_small
    nghuyong/ernie-1.0-base-zh nghuyong/ernie-3.0-base-zh nghuyong/ernie-3.0-medium-zh
    nghuyong/ernie-3.0-micro-zh nghuyong/ernie-3.0-mini-zh nghuyong/ernie-3.0-nano-zh
    nghuyong/ernie-gram-zh uer/chinese_roberta_L-4_H-512
    """.split()  # noqa: SIM905
)
"""Repositories that public source code names in these letters, such as for `from_pretrained`."""

OWN_ENTRIES: Final = {
    "二郎神/Erlangshen/large(L24)": "Erlangshen-MegatronBert-1.3B",
    "闻仲/Wenzhong/large(L24)": "Wenzhong-GPT2-3.5B",
    "余元/Yuyuan/large(L24)": "Yuyuan-GPT2-3.5B",
    "周文王/Zhouwenwang/base(L12)": "Zhouwenwang-Unified-110M",
    "周文王/Zhouwenwang/large(L24)": "Zhouwenwang-Unified-1.3B",
}
"""Rows that are entries of the family."""
