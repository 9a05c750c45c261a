# SPDX-License-Identifier: Apache-2.0
"""From a model and prepared images to the objective that fits them: captions or labels.

Called by training once the model is there and before anything else knows its weights, by all
processes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.data.caption_rows import open_images
from pyfsb.errors import ConfigError
from pyfsb.models.building import set_labels
from pyfsb.models.contrastive_loss import freeze_vision, is_vision_frozen
from pyfsb.models.image_vectors import encode_images_once
from pyfsb.models.pixels import find_preprocessing, image_size
from pyfsb.objectives.contrastive import Contrastive, ImageTable
from pyfsb.objectives.image_crops import RandomCrop
from pyfsb.objectives.image_labels import ImageLabels

_log: Final = logging.getLogger("pyfsb.training")


def open_table(model: PreTrainedModel, rows_folder: Path, folder: Path | None = None) -> ImageTable:
    """Return prepared images as a model wants them.

    Args:
        model: What will look at them.
        rows_folder: Of the data stage.
        folder: Where a preprocessor_config.json may lie.

    Raises:
        DataError: There are no images, or they have another size.
        ConfigError: The model looks at no square images.
    """
    preprocessing = find_preprocessing(model.config, folder)
    pixels = open_images(rows_folder, size=image_size(model.config))
    return ImageTable(pixels=pixels, mean=preprocessing.mean, std=preprocessing.std)


def build_contrastive_objective(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: ImageTable,
    *,
    max_tokens: int,
    freezes_vision: bool,
    device: torch.device,
    crop: RandomCrop | None = None,
) -> Contrastive:
    """Return the objective of captions.

    With a frozen tower all images are computed here, once, unless training cuts them anew.

    Args:
        model: Two towers; its vision tower is frozen in place if that is wanted.
        tokenizer: Of the texts.
        images: From `open_table`.
        max_tokens: Tokens of a caption at most.
        freezes_vision: Keep the vision tower and its map as they are.
        device: Where to compute.
        crop: How training cuts images at random. None: it does not.

    Raises:
        ConfigError: The model has no vision tower, or the tokenizer no tokens for the ends.
    """
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad")}
    missing = [name for name, number in ids.items() if number is None]
    if missing:
        raise ConfigError(f"the tokenizer has no {missing[0]} token; captions need it")
    if freezes_vision:
        freeze_vision(model)
    if is_vision_frozen(model) and crop is None:
        _log.info("frozen vision tower: %d images are computed once", len(images.pixels))
        images = encode_images_once(model, images, device)
    return Contrastive(**ids, max_tokens=max_tokens, images=images, crop=crop)


def build_label_objective(
    model: PreTrainedModel, images: ImageTable, labels: Sequence[str], *, seed: int
) -> ImageLabels:
    """Return the objective of labels.

    A model that does not know the labels gets a new head for them, in place.

    Args:
        model: With a head of labels.
        images: From `open_table`.
        labels: Those of all rows.
        seed: Of a new head.
    """
    config: Any = model.config
    names = [str(config.id2label[number]) for number in sorted(config.id2label)]
    wanted = sorted(set(labels))
    if not set(wanted) <= set(names):
        _log.info("labels: a new head for %d", len(wanted))
        _replace_head(model, wanted, seed)
        names = wanted
    patches = image_size(config) // int(config.patch_size)
    return ImageLabels(labels=tuple(names), images=images, num_patches=patches**2 + 1)


def _replace_head(model: PreTrainedModel, labels: Sequence[str], seed: int) -> None:
    old = getattr(model, "classifier", None)
    if not isinstance(old, nn.Linear):
        raise ConfigError(f"{model.config.model_type} has no head of labels that can be replaced")
    torch.manual_seed(seed)
    new = nn.Linear(old.in_features, len(labels), device=old.weight.device)
    if new.weight.device.type != "meta":
        nn.init.normal_(new.weight, std=float(getattr(model.config, "initializer_range", 0.02)))
        nn.init.zeros_(new.bias)
    set_labels(model.config, labels)
    model.classifier = new
    model.num_labels = len(labels)
