# SPDX-License-Identifier: Apache-2.0
"""Taiyi (太乙): images and texts. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValue, ConfigValues, ModelEntry, Score
from pyfsb.registry.facts import CARD, claims, scores
from pyfsb.registry.taxonomy import Demand, Series, Task

_BERT: Final[dict[str, ConfigValue]] = {
    "vocab_size": 21128, "type_vocab_size": 2, "max_position_embeddings": 512,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02, "layer_norm_eps": 1e-12,
}  # fmt: skip
_TEXT_BASE: Final[dict[str, ConfigValue]] = {
    **_BERT, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072,
}  # fmt: skip
_TEXT_LARGE: Final[dict[str, ConfigValue]] = {
    **_BERT, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096,
}  # fmt: skip
_LOGIT_SCALE: Final = 2.6592
_ROBERTA: Final[ConfigValues] = {
    "vocab_size": 50265, "type_vocab_size": 1, "max_position_embeddings": 514,
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "layer_norm_eps": 1e-5, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
_TOWER_ISSUE: Final = (
    "Released as two parts: a BertForSequenceClassification whose logits are the text's vector, "
    "and OpenAI's CLIP for images. The later module keeps both in one, without a bias; its forward "
    "and its training project BERT's pooler output too, only its get_text_features projects [CLS] "
    "(legacy_unpooled_text_features)."
)
_MAP_UNKNOWN: Final = "The objectives (MAP): announced with the paper, never published."
_MAP_CHOICE: Final = "objective: what the encoder of each side can be trained with further"


def _retrieval(name: str, at_1: float, at_5: float, at_10: float, source: str) -> tuple[Score, ...]:
    """Return text-to-image recall among the first 1, 5 and 10."""
    return tuple(
        Score(
            task=name, metric=f"text-to-image R@{rank}", value=round(value / 100, 6),
            split="test", source=source,
        )
        for rank, value in ((1, at_1), (5, at_5), (10, at_10))
    )  # fmt: skip


ENTRIES: Final = (
    ModelEntry(
        name="Taiyi-CLIP-Roberta-102M-Chinese", paper_number=36,
        series=Series.TAIYI, demand=Demand.SPECIAL, task=Task.MULTIMODAL,
        family=Family.IMAGE_TEXT, other_families=(Family.EMBED,),
        architecture="taiyi-clip",
        config={
            "projection_dim": 512, "logit_scale_init_value": _LOGIT_SCALE,
            "text_projection_bias": True,
            "text_config": _TEXT_BASE,
            "vision_config": {
                "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                "num_attention_heads": 12, "image_size": 224, "patch_size": 32,
                "hidden_act": "quick_gelu", "projection_dim": 512,
            },
        },
        num_parameters=102_000_000,
        size_note="The name counts the text tower; with CLIP's ViT-B/32 it is 190 M.",
        built_parameters=190_000_000,
        max_tokens=512, objective=ObjectiveName.CONTRASTIVE, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Taiyi-CLIP-Roberta-102M-Chinese",
        aliases=("Taiyi-CLIP-102M",), parent="hfl/chinese-roberta-wwm-ext",
        claims=claims(
            ("corpus", "Wukong, 90 M of its 100 M pairs, 20 epochs", CARD),
            ("compute", "8 A100 for 10 days", CARD),
        ),
        scores=(
            *scores({"imagenet_cn": 0.41}, CARD, metric="top-1", split="test"),
            *scores({"imagenet_cn": 0.4285}, "later model card", metric="top-1", split="test"),
            *_retrieval("flickr30k_cna", 44.06, 71.42, 80.84, CARD),
            *_retrieval("flickr30k_cna", 46.32, 74.58, 83.44, "later model card"),
            *_retrieval("coco_cn", 46.24, 78.06, 88.88, CARD),
        ),
        known_issues=(_TOWER_ISSUE,),
        source="RoBERTa-wwm base and OpenAI's ViT-B/32",
    ),
    ModelEntry(
        name="Taiyi-CLIP-Roberta-large-326M-Chinese", paper_number=37,
        series=Series.TAIYI, demand=Demand.SPECIAL, task=Task.MULTIMODAL,
        family=Family.IMAGE_TEXT, other_families=(Family.EMBED,),
        architecture="taiyi-clip",
        config={
            "projection_dim": 768, "logit_scale_init_value": _LOGIT_SCALE,
            "text_projection_bias": True,
            "text_config": _TEXT_LARGE,
            "vision_config": {
                "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
                "hidden_act": "quick_gelu", "projection_dim": 768,
            },
        },
        num_parameters=326_000_000,
        size_note="The name counts the text tower; with CLIP's ViT-L/14 it is 629 M.",
        built_parameters=629_200_000,
        max_tokens=512, objective=ObjectiveName.CONTRASTIVE, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Taiyi-CLIP-Roberta-large-326M-Chinese",
        aliases=("Taiyi-CLIP-326M", "Taiyi-CLIP-Roberta-326M-Chinese"),
        parent="hfl/chinese-roberta-wwm-ext-large",
        claims=claims(
            ("corpus", "Wukong, 90 M of its 100 M pairs, 10 epochs", CARD),
            ("corpus", "Wukong for 10 epochs, then Wukong and Zero, 123 M pairs, for 12",
             "later model card"),
            ("compute", "16 A100 for 5 days", CARD),
        ),
        scores=(
            *scores({"imagenet_cn": 0.5172}, CARD, metric="top-1", split="test"),
            *scores({"imagenet_cn": 0.5305}, "later model card", metric="top-1", split="test"),
            *_retrieval("flickr30k_cna", 51.08, 78.2, 85.94, CARD),
            *_retrieval("flickr30k_cna", 54.36, 80.56, 87.9, "later model card"),
            *_retrieval("coco_cn", 52.61, 80.34, 89.55, CARD),
        ),
        known_issues=(_TOWER_ISSUE,),
        source="RoBERTa-wwm large and OpenAI's ViT-L/14",
    ),
    ModelEntry(
        name="Taiyi-CLIP-RoBERTa-326M-ViT-H-Chinese", paper_number=35,
        series=Series.TAIYI, demand=Demand.SPECIAL, task=Task.MULTIMODAL,
        family=Family.IMAGE_TEXT, other_families=(Family.EMBED,),
        architecture="taiyi-clip",
        config={
            "projection_dim": 1024, "logit_scale_init_value": _LOGIT_SCALE,
            "text_projection_bias": True,
            "text_config": _TEXT_LARGE,
            "vision_config": {
                "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
                "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
                "hidden_act": "gelu", "projection_dim": 1024,
            },
        },
        num_parameters=326_000_000,
        size_note="The name counts the text tower; with LAION's ViT-H/14 it is 958 M.",
        built_parameters=957_600_000,
        max_tokens=512, objective=ObjectiveName.CONTRASTIVE, tokenizer="wordpiece",
        hub_id="IDEA-CCNL/Taiyi-CLIP-RoBERTa-326M-ViT-H-Chinese",
        parent="hfl/chinese-roberta-wwm-ext-large",
        known_issues=(_TOWER_ISSUE,),
        unknown=("Scores of this one.",),
        source="RoBERTa-wwm large and LAION's ViT-H/14",
    ),
    ModelEntry(
        name="Taiyi-Roberta-124M-D", paper_number=38,
        series=Series.TAIYI, demand=Demand.SPECIAL, task=Task.MULTIMODAL, family=Family.EMBED,
        architecture="roberta", config=_ROBERTA, num_parameters=124_000_000, max_tokens=512,
        objective=ObjectiveName.TOKEN_MLM, other_objectives=(ObjectiveName.CONTRASTIVE,),
        tokenizer="byte_bpe", languages=("en",),
        hub_id="IDEA-CCNL/Taiyi-Roberta-124M-D", parent="roberta-base",
        claims=claims(
            ("corpus", "1 M image-text pairs", "English text of the second version's card"),
        ),
        scores=scores(
            {"mnli": 0.871, "qqp": 0.918, "qnli": 0.923, "sst2": 0.945, "mrpc": 0.924,
             "rte": 0.787, "wnli": 0.563},
            CARD, metric="as GLUE has it",
        ),
        unknown=(_MAP_UNKNOWN,), our_choices=(_MAP_CHOICE,),
        source="RoBERTa-base's published config.json",
    ),
    ModelEntry(
        name="Taiyi-Roberta-124M-D-v2", paper_number=39,
        series=Series.TAIYI, demand=Demand.SPECIAL, task=Task.MULTIMODAL, family=Family.EMBED,
        architecture="roberta", config=_ROBERTA, num_parameters=124_000_000, max_tokens=512,
        objective=ObjectiveName.TOKEN_MLM, other_objectives=(ObjectiveName.CONTRASTIVE,),
        tokenizer="byte_bpe", languages=("en",),
        hub_id="IDEA-CCNL/Taiyi-Roberta-124M-D-v2", parent="roberta-base",
        claims=claims(
            ("corpus", "4 M pairs in the Chinese text, 1 M in the English one", CARD),
            ("corpus", "MSCOCO, VG and SBU", CARD),
        ),
        scores=scores(
            {"mnli": 0.871, "qqp": 0.919, "qnli": 0.924, "sst2": 0.945, "mrpc": 0.93,
             "rte": 0.798},
            CARD, metric="as GLUE has it",
        ),
        unknown=(_MAP_UNKNOWN,), our_choices=(_MAP_CHOICE,),
        source="RoBERTa-base's published config.json",
    ),
    ModelEntry(
        name="Taiyi-vit-87M-D", paper_number=40,
        series=Series.TAIYI, demand=Demand.SPECIAL, task=Task.MULTIMODAL,
        family=Family.CLASSIFY_IMAGE, other_families=(Family.EMBED,),
        architecture="vit",
        config={
            "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "hidden_act": "gelu", "image_size": 224,
            "patch_size": 16, "num_channels": 3, "qkv_bias": True, "num_labels": 1000,
        },
        num_parameters=87_000_000, max_tokens=197,
        objective=ObjectiveName.IMAGE_LABELS, tokenizer="none", languages=(),
        hub_id="IDEA-CCNL/Taiyi-vit-87M-D", parent="clip-vit-base-patch16-224",
        scores=scores(
            {"cifar10": 0.987, "imagenet1k": 0.824}, CARD, metric="top-1", split="unsaid",
        ),
        unknown=(_MAP_UNKNOWN,),
        our_choices=(_MAP_CHOICE, "max_tokens = 197: the 196 patches and [CLS]"),
        source="ViT-base, patches of 16, 1,000 classes",
    ),
)  # fmt: skip
