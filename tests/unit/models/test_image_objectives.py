# SPDX-License-Identifier: Apache-2.0
"""What models expect of images, and the objectives that fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, ViTConfig, ViTForImageClassification
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pyfsb.data.image_files import ImageShape, decode_image, middle_of
from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.models.architectures.taiyi_clip import TaiyiClipConfig
from pyfsb.models.contrastive_loss import ContrastiveLoss, is_vision_frozen
from pyfsb.models.image_objectives import (
    build_contrastive_objective,
    build_label_objective,
    open_table,
)
from pyfsb.models.pixels import (
    CLIP_MEAN,
    HALF,
    PREPROCESSOR_NAME,
    find_preprocessing,
    write_preprocessor,
)
from pyfsb.objectives.contrastive import normalise_pixels
from pyfsb.objectives.image_crops import RandomCrop
from tests.helpers.captions import CLIP, collate_pairs, tiny_clip, tiny_images
from tests.helpers.pictures import draw, to_bytes
from tests.helpers.row_texts import tiny_tokenizer

VIT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
    "image_size": 16, "patch_size": 8, "num_labels": 3,
}  # fmt: skip
CPU = torch.device("cpu")


def test_defaults_are_those_of_the_kind() -> None:
    clip, vit = find_preprocessing(TaiyiClipConfig(**CLIP)), find_preprocessing(ViTConfig(**VIT))
    assert (clip.shape, clip.mean) == (middle_of(16), CLIP_MEAN)
    assert (vit.shape, vit.mean, vit.std) == (middle_of(16), HALF, HALF)
    with pytest.raises(ConfigError, match="bert: expected a model of square images"):
        find_preprocessing(BertConfig())


def found_in(folder: Path, config: Any, **values: Any) -> Any:
    (folder / PREPROCESSOR_NAME).write_text(json.dumps(values))
    return find_preprocessing(config, folder)


def test_published_files_are_read(tmp_path: Path) -> None:
    vit, clip = ViTConfig(**VIT), TaiyiClipConfig(**CLIP)
    found = found_in(tmp_path, vit, size=16, resample=2, image_mean=[0.1, 0.2, 0.3])
    assert found.shape == ImageShape(size=16, resize_to=None, resample=2)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), HALF)
    found = found_in(tmp_path, clip, do_center_crop=True, crop_size=16, size={"shortest_edge": 20})
    assert found.shape == ImageShape(size=16, resize_to=20)
    found = found_in(tmp_path, clip, do_center_crop=True, crop_size={"height": 16}, size=18)
    assert found.shape == ImageShape(size=16, resize_to=18)
    found = found_in(tmp_path, vit, do_normalize=False, size={"height": 16, "width": 16})
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"do_center_crop": True, "crop_size": 32}, "crop_size = 32; the model looks at 16"),
        ({"size": 20}, "size = 20; the model looks at 16 pixels"),
        ({"rescale_factor": 0.5}, "rescale_factor = 0.5; expected 1/255"),
        ({"size": 16, "image_mean": [1]}, "not enough values"),
    ],
    ids=str,
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, values: dict, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        found_in(tmp_path, ViTConfig(**VIT), **values)


def test_what_is_written_is_what_transformers_does(tmp_path: Path) -> None:
    config = TaiyiClipConfig(**CLIP)
    write_preprocessor(config, tmp_path / "none", tmp_path)
    found = find_preprocessing(config, tmp_path)
    assert found == find_preprocessing(config)
    image = draw()
    pixels = decode_image(to_bytes(image), found.shape)
    expected = CLIPImageProcessorPil.from_pretrained(tmp_path)(image)["pixel_values"][0]
    np.testing.assert_allclose(
        normalise_pixels(pixels, found.mean, found.std), expected, rtol=0, atol=1e-5
    )
    write_preprocessor(BertConfig(), tmp_path, tmp_path / "none")


@pytest.mark.parametrize("freezes_vision", [False, True])
def test_frozen_towers_compute_images_once(freezes_vision: bool) -> None:
    model = tiny_clip()
    objective = build_contrastive_objective(
        model, tiny_tokenizer(), tiny_images(),
        max_tokens=9, freezes_vision=freezes_vision, device=CPU,
    )  # fmt: skip
    assert is_vision_frozen(model) == freezes_vision
    assert (objective.images.vectors is not None) == freezes_vision
    assert (objective.cls, objective.max_tokens) == (tiny_tokenizer().cls_token_id, 9)


def test_a_frozen_tower_sees_each_cut_where_images_are_cut() -> None:
    model = tiny_clip()
    objective = build_contrastive_objective(
        model, tiny_tokenizer(), tiny_images(), max_tokens=9, freezes_vision=True, device=CPU,
        crop=RandomCrop(min_ratio=0.5, num_samples=4),
    )  # fmt: skip
    assert is_vision_frozen(model) and objective.images.vectors is None
    batch = collate_pairs([0, 1, 2], objective)
    loss = ContrastiveLoss(model)(**batch)
    loss.backward()
    assert model.visual_projection.weight.grad is None
    assert model.text_projection.weight.grad is not None
    whole = ContrastiveLoss(model)(**collate_pairs([0, 1, 2]))
    assert float(loss.detach()) != float(whole.detach())


def test_prepared_images_are_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", tiny_images().pixels)
    table = open_table(tiny_clip(), tmp_path)
    np.testing.assert_array_equal(table.pixels, tiny_images().pixels)
    assert table.mean == CLIP_MEAN


def test_known_labels_keep_their_head_and_new_ones_get_one() -> None:
    model = ViTForImageClassification(ViTConfig(**VIT))
    model.config.id2label = {0: "猫", 1: "狗", 2: "牛"}
    head = model.classifier
    objective = build_label_objective(model, tiny_images(), ["牛", "猫", "猫"], seed=1)
    assert objective.labels == ("猫", "狗", "牛")
    assert objective.num_patches == 5
    assert model.classifier is head
    objective = build_label_objective(model, tiny_images(), ["鸟", "鱼", "鸟"], seed=1)
    assert objective.labels == ("鱼", "鸟")
    assert model.config.id2label == {0: "鱼", 1: "鸟"}
    assert model(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 2)
    again = ViTForImageClassification(ViTConfig(**VIT))
    build_label_objective(again, tiny_images(), ["鸟", "鱼"], seed=1)
    assert torch.equal(again.classifier.weight, model.classifier.weight)
