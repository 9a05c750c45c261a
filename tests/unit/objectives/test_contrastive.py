# SPDX-License-Identifier: Apache-2.0
"""Captions with images, and images with labels, as batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pyfsb.errors import ConfigError, DataError
from pyfsb.objectives.contrastive import CaptionSample, ImageTable, normalise_pixels
from pyfsb.objectives.image_crops import RandomCrop, crop
from pyfsb.objectives.image_labels import ImageLabels, LabelledImage
from tests.helpers.captions import collate_pairs, tiny_contrastive, tiny_images
from tests.helpers.row_texts import draw_keys, tiny_tokenize, tiny_tokenizer


def test_a_batch_by_hand() -> None:
    batch = collate_pairs([2, 0, 2])
    tokenizer, images = tiny_tokenizer(), tiny_images()
    rows = [tokenizer(text)["input_ids"] for text in ("面很好吃", "李白写诗", "面很好吃")]
    assert batch["input_ids"].tolist() == rows
    assert batch["pair_weights"].tolist() == [1.0, 1.0, 1.0]
    expected = (images.pixels[[2, 0, 2]] / 255 - np.array(images.mean)[:, None, None]) / np.array(
        images.std
    )[:, None, None]
    np.testing.assert_allclose(batch["pixel_values"], expected, atol=1e-6)


def test_training_images_are_cut_anew_in_each_pass_and_held_out_ones_are_not() -> None:
    cuts = RandomCrop(min_ratio=0.4, num_samples=2)
    objective, images = tiny_contrastive(crop=cuts), tiny_images()
    encoded = [
        objective.encode(CaptionSample(text="书", image=number), tiny_tokenize())
        for number in range(3)
    ]
    first = objective.collate(encoded, draw_keys(3)).arrays["pixel_values"]
    again = objective.collate(encoded, draw_keys(3)).arrays["pixel_values"]
    later = objective.collate(encoded, draw_keys(3, data_pass=1)).arrays["pixel_values"]
    whole = images.take([0, 1, 2])["pixel_values"]
    assert np.array_equal(first, again)
    assert [np.array_equal(a, b) for a, b in zip(first, later, strict=True)] == [False, False, True]
    assert [np.array_equal(a, b) for a, b in zip(first, whole, strict=True)] == [False, False, True]
    box = cuts.draw(draw_keys(2)[1], 16)
    assert box is not None
    expected = normalise_pixels(crop(images.pixels[1], box), images.mean, images.std)
    np.testing.assert_array_equal(first[1], expected)


def test_vectors_cannot_be_cut() -> None:
    images = replace(tiny_images(), vectors=np.zeros((6, 4), np.float32))
    with pytest.raises(ConfigError, match="of which there are vectors"):
        tiny_contrastive(images, crop=RandomCrop(min_ratio=0.9, num_samples=6))


def test_short_captions_are_padded_and_long_ones_cut() -> None:
    objective = tiny_contrastive(max_tokens=5)
    long = objective.encode(CaptionSample(text="体育新闻，体育", image=1), tiny_tokenize())
    short = objective.encode(CaptionSample(text="书", image=0), tiny_tokenize())
    assert (long.ids_T.size, long.is_truncated) == (5, True)
    assert (long.ids_T[0], long.ids_T[-1]) == (objective.cls, objective.sep)
    assert (objective.count_tokens(short), short.is_truncated) == (3, False)
    batch = objective.collate([long, short], draw_keys(2))
    assert batch.arrays["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch.arrays["input_ids"][1, 3:].tolist() == [objective.pad] * 2
    assert (batch.num_targets, batch.num_tokens) == (2, 8)


def test_wrong_numbers_and_empty_captions() -> None:
    objective = tiny_contrastive()
    with pytest.raises(DataError, match="image 6: there are 6"):
        objective.encode(CaptionSample(text="书", image=6), tiny_tokenize())
    with pytest.raises(DataError, match="has no tokens"):
        objective.encode(CaptionSample(text=" ", image=0), tiny_tokenize())
    with pytest.raises(DataError, match="2 vectors of 6 images"):
        ImageTable(
            pixels=tiny_images().pixels, mean=(0, 0, 0), std=(1, 1, 1),
            vectors=np.zeros((2, 4), np.float32),
        )  # fmt: skip


def test_white_and_black() -> None:
    pixels = np.stack([np.zeros((3, 2, 2), np.uint8), np.full((3, 2, 2), 255, np.uint8)])
    found = normalise_pixels(pixels, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    assert found[0, :, 0, 0].tolist() == [-1.0, -1.0, 0.0]
    assert found[1, :, 0, 0].tolist() == [1.0, 3.0, 1.0]
    assert found.dtype == np.float32


def test_labels() -> None:
    objective = ImageLabels(labels=("猫", "狗"), images=tiny_images(), num_patches=5)
    samples = [LabelledImage(label=label, image=n) for n, label in enumerate(("狗", "猫", "狗"))]
    encoded = [objective.encode(sample, tiny_tokenize()) for sample in samples]
    batch = objective.collate(encoded, draw_keys(3))
    assert batch.arrays["labels"].tolist() == [1, 0, 1]
    assert batch.arrays["pixel_values"].shape == (3, 3, 16, 16)
    assert (batch.num_targets, batch.num_tokens) == (3, 15)
    with pytest.raises(DataError, match="label '牛' is not one of 2"):
        objective.encode(LabelledImage(label="牛", image=0), tiny_tokenize())
