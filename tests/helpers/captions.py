"""Tiny images, their captions and a tiny Taiyi-CLIP."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfsb.models.architectures.taiyi_clip import TaiyiClipConfig, TaiyiClipModel
from pyfsb.models.pixels import find_preprocessing
from pyfsb.objectives.contrastive import CaptionSample, Contrastive, ImageTable
from tests.helpers.row_texts import TINY, draw_keys, tiny_tokenize, tiny_tokenizer

CLIP: dict[str, Any] = {
    "projection_dim": 16,
    "text_config": TINY,
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "projection_dim": 16,
    },
}  # fmt: skip
CAPTIONS = ("李白写诗", "杜甫在成都", "面很好吃", "北京大学", "体育新闻，体育", "书店")


def tiny_clip(seed: int = 1, **changes: Any) -> TaiyiClipModel:
    torch.manual_seed(seed)
    return TaiyiClipModel(TaiyiClipConfig(**{**CLIP, **changes})).eval()


def tiny_images(count: int = len(CAPTIONS), size: int = 16) -> ImageTable:
    drawn = np.random.default_rng(5).integers(0, 256, (count, 3, size, size))
    found = find_preprocessing(TaiyiClipConfig(**CLIP))
    return ImageTable(pixels=drawn.astype(np.uint8), mean=found.mean, std=found.std)


def tiny_contrastive(images: ImageTable | None = None, **changes: Any) -> Contrastive:
    tokenizer = tiny_tokenizer()
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    settings: dict[str, Any] = dict(zip(("cls", "sep", "pad"), special, strict=True))
    settings |= {"max_tokens": 12, "images": images or tiny_images()}
    return Contrastive(**(settings | changes))


def collate_pairs(numbers: list[int], objective: Contrastive | None = None) -> dict[str, Tensor]:
    """Return the batch of some pairs, number n being caption n and image n."""
    objective = objective or tiny_contrastive()
    samples = [CaptionSample(text=CAPTIONS[number], image=number) for number in numbers]
    encoded = [objective.encode(sample, tiny_tokenize()) for sample in samples]
    made = objective.collate(encoded, draw_keys(len(encoded)))
    return {name: torch.from_numpy(array) for name, array in made.arrays.items()}
