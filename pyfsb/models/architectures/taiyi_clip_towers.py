# SPDX-License-Identifier: Apache-2.0
"""The released Taiyi-CLIPs, two checkpoints each: a text tower and a CLIP whose images it joined.

The text tower is a `BertForSequenceClassification` whose logits are the text's vector, or (ViT-H) a
`BertModel` whose pooled output is; of the CLIP only images count. Together they are one
`TaiyiClipModel`, whose map of texts has a bias then, or is the identity.
Called by `pyfsb.models.importing_towers`. Never opens a file.

Source: the model cards of IDEA-CCNL/Taiyi-CLIP-Roberta-102M-Chinese and its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor
from transformers import BertConfig, CLIPConfig

from pyfsb.errors import CheckpointError
from pyfsb.models.architectures.taiyi_clip import LOGIT_SCALE, TaiyiClipConfig, TaiyiClipModel
from pyfsb.models.key_maps import KeyMap, check_keys

TEXT_KEYS: Final = KeyMap(
    rules=(
        (r"^bert\.", "text_model."),
        (r"^classifier\.", "text_projection."),
        (r"^(embeddings|encoder|pooler)\.", r"text_model.\1."),
    ),
    dropped=(r"(bert\.)?embeddings\.position_ids",),
)
"""From the text tower's names to ours."""
IMAGE_KEYS: Final = KeyMap(
    dropped=(
        r"text_model\..*", r"text_projection\.weight",
        r"vision_model\.embeddings\.position_ids",
    )
)  # fmt: skip
"""From a CLIP's names to ours; its own texts are left out."""


def join_configs(text: Mapping[str, Any], clip: Mapping[str, Any]) -> TaiyiClipConfig:
    """Return the config of both towers.

    Args:
        text: config.json of the text tower.
        clip: config.json of the CLIP.

    Raises:
        CheckpointError: They are of other architectures, or give vectors of different widths.
    """
    for values, expected in ((text, "bert"), (clip, "clip")):
        if values.get("model_type") != expected:
            raise CheckpointError(
                f"model_type = {values.get('model_type')!r}: expected {expected!r}; a Taiyi-CLIP "
                "is a BERT for texts and a CLIP for images"
            )
    texts, images = BertConfig(**text), CLIPConfig(**clip)
    width = texts.hidden_size if _is_bare(text) else texts.num_labels
    if width != images.projection_dim:
        raise CheckpointError(
            f"the text tower gives vectors of {width} numbers, the CLIP of "
            f"{images.projection_dim}: they were not trained together"
        )
    return TaiyiClipConfig(
        text_config=texts.to_dict(),
        vision_config=images.vision_config.to_dict(),
        projection_dim=images.projection_dim,
        logit_scale_init_value=images.logit_scale_init_value or LOGIT_SCALE,
        text_projection_bias=True,
    )


def join_weights(
    text: Mapping[str, Tensor], clip: Mapping[str, Tensor], expected: TaiyiClipModel
) -> dict[str, Tensor]:
    """Return the weights of both towers under our names.

    Args:
        text: Of the text tower.
        clip: Of the CLIP.
        expected: A model of the joint config, on any device.

    Raises:
        CheckpointError: Lists missing and extra names and wrong shapes.
    """
    joined = TEXT_KEYS.convert(text) | IMAGE_KEYS.convert(clip)
    if _is_bare(expected.config.text_config.to_dict()):
        width = expected.config.projection_dim
        joined |= {"text_projection.weight": torch.eye(width)}
        joined |= {"text_projection.bias": torch.zeros(width)}
    check_keys(joined, expected.state_dict(), source="text tower and CLIP")
    return joined


def _is_bare(config: Mapping[str, Any]) -> bool:
    """Say whether a text tower has no map into the space: its pooled output lies there already."""
    return config.get("architectures") == ["BertModel"]
