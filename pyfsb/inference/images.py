# SPDX-License-Identifier: Apache-2.0
"""Images of requests: bytes as base64 on the wire, files and bytes in Python.

A request never names a file: a server would read its own for anybody. Called by the predictors of
images; what an image becomes is `pyfsb.data.image_files`' matter.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pyfsb.data.image_files import MAX_IMAGE_BYTES, decode_image
from pyfsb.errors import ConfigError, DataError
from pyfsb.models.pixels import Preprocessing, find_preprocessing
from pyfsb.objectives.contrastive import normalise_pixels
from pyfsb.schema import Schema

BATCH_IMAGES: Final = 16
"""Images of one forward pass at most."""
_MARK: Final = ";base64,"


class ImageInput(Schema):
    """One image."""

    image: str
    """The bytes of an image file as base64, with or without `data:image/…;base64,` before."""


def encode_image(image: bytes | Path) -> str:
    """Return what requests hold of an image.

    Args:
        image: A file, or its bytes.

    Raises:
        ConfigError: The file cannot be read, or is too large.
    """
    data = image if isinstance(image, bytes) else _read_file(image)
    return base64.b64encode(data).decode("ascii")


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise ConfigError(f"{path} has more than {MAX_IMAGE_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from None


def preprocessing_of(model: PreTrainedModel) -> Preprocessing:
    """Return what a model expects of images, by its folder if it was loaded from one."""
    folder = Path(model.name_or_path) if model.name_or_path else None
    return find_preprocessing(model.config, folder)


def batch_images(
    images: Sequence[tuple[int, str]], preprocessing: Preprocessing
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield positions of inputs and their images as a model takes them, batch by batch.

    Args:
        images: Position of each input, and its image as base64.
        preprocessing: Of the model.

    Raises:
        ConfigError: An image cannot be used; names the input's position.
    """
    for start in range(0, len(images), BATCH_IMAGES):
        part = images[start : start + BATCH_IMAGES]
        pixels = np.stack([_decode(text, position, preprocessing) for position, text in part])
        values = normalise_pixels(pixels, preprocessing.mean, preprocessing.std)
        yield [position for position, _ in part], torch.from_numpy(values)


def _decode(text: str, position: int, preprocessing: Preprocessing) -> np.ndarray:
    head, mark, rest = text.partition(_MARK)
    body = rest if mark and head.startswith("data:") else text
    if len(body) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        raise ConfigError(f"input {position}: the image has more than {MAX_IMAGE_BYTES:,} bytes")
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(
            f"input {position}: image = {text[:20]!r}…: expected an image file's bytes as base64"
        ) from None
    try:
        return decode_image(data, preprocessing.shape)
    except DataError as exc:
        raise ConfigError(f"input {position}: image: {exc}") from None
