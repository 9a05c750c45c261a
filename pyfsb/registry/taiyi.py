# SPDX-License-Identifier: Apache-2.0
"""Taiyi (太乙): images and texts. Data only."""

from __future__ import annotations

from typing import Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.registry.entry import ConfigValue, ConfigValues, ModelEntry, Score
from pyfsb.registry.facts import (
    CARD,
    DOCUMENTS,
    FIRST_CARD,
    HUB_CARD,
    UNSAID,
    claims,
    scores,
)
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
_HUGE_ISSUE: Final = (
    "Released as two parts: a BertModel whose pooled output is the text's vector without any "
    "projection, and LAION's ViT-H/14 of open_clip (laion2b_s32b_b79k) for images. The module here "
    "projects the text as the two smaller ones do; the import puts the identity there."
)
_FROZEN: Final = ("training", "the text tower alone; that of images is frozen", HUB_CARD)
_MAP_UNKNOWN: Final = "The objectives (MAP): announced with the paper, never published."
_GLUE: Final = (
    "fine-tuning",
    "GLUE with 128 tokens, 32 rows a step, learning rate 3e-5",
    CARD,
)
_MAP_CHOICE: Final = "objective: what the encoder of each side can be trained with further"


def _zero_shot(
    source: str,
    *,
    imagenet: tuple[float, float],
    flickr: tuple[float, float, float],
    coco: tuple[float, float, float],
    wukong: tuple[float, float, float],
) -> tuple[Score, ...]:
    """Return one card's table: accuracies in percent, and text-to-image recall in percent."""
    tasks = {
        ("imagenet_cn", UNSAID): dict(zip(("top-1", "top-5"), imagenet, strict=True)),
        **{
            (task, split): {
                f"text-to-image R@{rank}": value
                for rank, value in zip((1, 5, 10), values, strict=True)
            }
            for task, split, values in (
                ("flickr30k_cna", "test", flickr),
                ("coco_cn", "test", coco),
                ("wukong50k", UNSAID, wukong),
            )
        },
    }
    return tuple(
        Score(task=task, metric=metric, value=round(value / 100, 6), split=split, source=source)
        for (task, split), metrics in tasks.items()
        for metric, value in metrics.items()
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
        card=f"{DOCUMENTS}/太乙系列/Taiyi-CLIP-Roberta-102M-Chinese.md",
        aliases=("Taiyi-CLIP-102M",), parent="hfl/chinese-roberta-wwm-ext",
        claims=claims(
            ("corpus", "Wukong, 90 M of its 100 M pairs, 20 epochs", CARD),
            ("corpus", "Wukong and Zero, 123 M pairs, 24 epochs", HUB_CARD), _FROZEN,
            ("compute", "8 A100 for 10 days", CARD),
            ("compute", "32 A100 for 7 days in the Chinese text, 16 in the English one", HUB_CARD),
        ),
        scores=(
            *_zero_shot(
                CARD, imagenet=(41.0, 69.19), flickr=(44.06, 71.42, 80.84),
                coco=(46.24, 78.06, 88.88), wukong=(48.67, 81.77, 90.09),
            ),
            *_zero_shot(
                HUB_CARD, imagenet=(42.85, 71.48), flickr=(46.32, 74.58, 83.44),
                coco=(47.10, 78.53, 87.84), wukong=(49.18, 81.94, 90.27),
            ),
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
        card=f"{DOCUMENTS}/太乙系列/Taiyi-CLIP-Roberta-large-326M-Chinese.md",
        aliases=("Taiyi-CLIP-326M", "Taiyi-CLIP-Roberta-326M-Chinese"),
        parent="hfl/chinese-roberta-wwm-ext-large",
        claims=claims(
            ("corpus", "Wukong, 90 M of its 100 M pairs, 10 epochs", FIRST_CARD),
            ("corpus", "Wukong for 10 epochs, then Wukong and Zero, 123 M pairs, for 12", CARD),
            _FROZEN,
            ("compute", "16 A100 for 5 days", FIRST_CARD),
            ("compute", "16 A100 for 7 days in the Chinese text, about 14 in the English one",
             HUB_CARD),
        ),
        scores=(
            *_zero_shot(
                FIRST_CARD, imagenet=(51.72, 78.46), flickr=(51.08, 78.20, 85.94),
                coco=(52.61, 80.34, 89.55), wukong=(60.16, 90.36, 95.61),
            ),
            *_zero_shot(
                CARD, imagenet=(53.05, 79.55), flickr=(54.36, 80.56, 87.90),
                coco=(51.47, 81.00, 90.40), wukong=(61.18, 90.46, 95.74),
            ),
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
        card="hub: IDEA-CCNL/Taiyi-CLIP-RoBERTa-326M-ViT-H-Chinese/README.md",
        parent="hfl/chinese-roberta-wwm-ext-large",
        claims=claims(
            ("corpus", "Wukong and Zero, 123 M pairs, 24 epochs", HUB_CARD),
            ("compute", "32 A100 for 8 days", HUB_CARD),
            _FROZEN,
        ),
        scores=_zero_shot(
            HUB_CARD, imagenet=(54.35, 80.64), flickr=(60.82, 85.00, 91.04),
            coco=(60.02, 83.95, 93.26), wukong=(66.85, 92.81, 96.69),
        ),
        known_issues=(_HUGE_ISSUE,),
        source="RoBERTa-wwm large and LAION's ViT-H/14",
    ),
    ModelEntry(
        name="Taiyi-Roberta-124M-D", paper_number=38,
        series=Series.TAIYI, demand=Demand.SPECIAL, task=Task.MULTIMODAL, family=Family.EMBED,
        architecture="roberta", config=_ROBERTA, num_parameters=124_000_000, max_tokens=512,
        objective=ObjectiveName.TOKEN_MLM, other_objectives=(ObjectiveName.CONTRASTIVE,),
        tokenizer="byte_bpe", languages=("en",),
        hub_id="IDEA-CCNL/Taiyi-Roberta-124M-D", parent="roberta-base",
        card=f"{DOCUMENTS}/太乙系列/Taiyi-Roberta-124M-D.md",
        claims=claims(
            ("corpus", "MSCOCO and VG", CARD),
            ("corpus", "1 M pairs", "model card of Taiyi-Roberta-124M-D-v2, English text"), _GLUE,
        ),
        scores=scores(
            {"mnli": 0.871, "qqp": 0.918, "qnli": 0.923, "sst2": 0.945, "cola": 0.626,
             "stsb": 0.904, "mrpc": 0.924, "rte": 0.787, "wnli": 0.563},
            CARD, metric="as GLUE has it", split=UNSAID,
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
        card=f"{DOCUMENTS}/太乙系列/Taiyi-Roberta-124M-D-v2.md",
        claims=claims(
            ("corpus", "4 M pairs in the Chinese text, 1 M in the English one", CARD),
            ("corpus", "MSCOCO, VG and SBU", CARD), _GLUE,
        ),
        scores=scores(
            {"mnli": 0.871, "qqp": 0.919, "qnli": 0.924, "sst2": 0.945, "cola": 0.655,
             "stsb": 0.91, "mrpc": 0.93, "rte": 0.798},
            CARD, metric="as GLUE has it", split=UNSAID,
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
        card=f"{DOCUMENTS}/太乙系列/Taiyi-vit-87M-D.md",
        claims=claims(
            ("corpus", "MSCOCO and VG", CARD),
            ("size", "87 M in the name, 89 M in the table of the same card", CARD),
            ("fine-tuning", "5 epochs, 128 images a step, learning rate 2e-5, weight decay 0.01",
             CARD),
        ),
        scores=scores(
            {"cifar10": 0.987, "imagenet1k": 0.824}, CARD, metric="top-1", split=UNSAID,
        ),
        unknown=(_MAP_UNKNOWN,),
        our_choices=(_MAP_CHOICE, "max_tokens = 197: the 196 patches and [CLS]"),
        source="ViT-base, patches of 16, 1,000 classes",
    ),
)  # fmt: skip
