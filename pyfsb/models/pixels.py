# SPDX-License-Identifier: Apache-2.0
"""What a model expects of images: size, cut, filter, and the colours that count as nothing.

Read from `preprocessor_config.json` where a folder has one, else from the kind of the model. Called
by training and inference, so both see the same pixels; opens no image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedConfig

from pyfsb.data.image_files import BICUBIC, ImageShape, middle_of
from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.objectives.contrastive import Rgb

PREPROCESSOR_NAME: Final = "preprocessor_config.json"
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
"""Source: OpenAI's CLIP, as the next."""
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
HALF: Final = (0.5, 0.5, 0.5)
"""Mean and deviation of ViT. Source: google/vit-base-patch16-224."""
_RESCALE: Final = 1 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From an image to a model's input."""

    shape: ImageShape
    """How it becomes a square."""
    mean: Rgb
    """What is taken from each colour, of pixels in [0, 1]."""
    std: Rgb
    """What the rest is divided by."""


def find_preprocessing(config: PreTrainedConfig, folder: Path | None = None) -> Preprocessing:
    """Return what a model expects of images.

    Args:
        config: Of the model.
        folder: Its folder; a preprocessor_config.json there says what differs from the default.

    Raises:
        ConfigError: The model looks at no images, or they are not squares.
        CheckpointError: The file cannot be used.
    """
    size = image_size(config)
    is_clip = getattr(config, "vision_config", None) is not None
    mean, std = (CLIP_MEAN, CLIP_STD) if is_clip else (HALF, HALF)
    default = Preprocessing(shape=middle_of(size), mean=mean, std=std)
    path = None if folder is None else folder / PREPROCESSOR_NAME
    if path is None or not path.is_file():
        return default
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")), size, default)
    except (ValueError, TypeError, KeyError) as exc:
        raise CheckpointError(f"{path} cannot be used: {exc}") from None


def write_preprocessor(config: PreTrainedConfig, source: Path, folder: Path) -> None:
    """Write how images were made that a model was trained on; nothing for models without images.

    The data stage scales the shorter side and cuts out the middle, whatever the source's file says.

    Args:
        config: Of the model.
        source: What training began with; its preprocessor_config.json gives the colours.
        folder: Of the exported model.
    """
    if not hasattr(config, "vision_config") and not hasattr(config, "image_size"):
        return
    found, size = find_preprocessing(config, source), image_size(config)
    square = {"height": size, "width": size}
    values = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True,
        "size": {"shortest_edge": size}, "resample": BICUBIC, "do_center_crop": True,
        "crop_size": square, "do_rescale": True, "rescale_factor": _RESCALE, "do_normalize": True,
        "image_mean": found.mean, "image_std": found.std, "do_convert_rgb": True,
    }  # fmt: skip
    (folder / PREPROCESSOR_NAME).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def image_size(config: PreTrainedConfig) -> int:
    """Return the pixels of a side that a model wants.

    Raises:
        ConfigError: It looks at no images, or they are not squares.
    """
    inner: Any = getattr(config, "vision_config", None) or config
    found = getattr(inner, "image_size", None)
    sides = (found, found) if isinstance(found, int) else tuple(found or ())
    if len(sides) != 2 or sides[0] != sides[1]:
        raise ConfigError(
            f"image_size = {found!r} of {config.model_type}: expected a model of square images"
        )
    return int(sides[0])


def _read(values: Mapping[str, Any], size: int, default: Preprocessing) -> Preprocessing:
    """Read the fields of an image processor of Transformers, new and old."""
    if (
        values.get("do_rescale", True)
        and abs(values.get("rescale_factor", _RESCALE) - _RESCALE) > 1e-9
    ):
        raise ValueError(f"rescale_factor = {values['rescale_factor']}; expected 1/255")
    mean, std = default.mean, default.std
    if not values.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    else:
        mean = _rgb(values.get("image_mean", mean))
        std = _rgb(values.get("image_std", std))
    resize_to = _resize_to(values, size) if values.get("do_resize", True) else size
    shape = ImageShape(
        size=size, resize_to=resize_to, resample=int(values.get("resample", BICUBIC))
    )
    return Preprocessing(shape=shape, mean=mean, std=std)


def _resize_to(values: Mapping[str, Any], size: int) -> int | None:
    """Return what the shorter side is scaled to; None where both sides are scaled."""
    wanted, crop = values.get("size", size), values.get("crop_size", size)
    cropped = crop if isinstance(crop, int) else crop["height"]
    if values.get("do_center_crop", False):
        if cropped != size:
            raise ValueError(f"crop_size = {crop!r}; the model looks at {size} pixels")
        return int(wanted if isinstance(wanted, int) else wanted["shortest_edge"])
    sides = (wanted, wanted) if isinstance(wanted, int) else (wanted["height"], wanted["width"])
    if sides != (size, size):
        raise ValueError(f"size = {wanted!r}; the model looks at {size} pixels")
    return None


def _rgb(values: Any) -> Rgb:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
