# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an image to the square of pixels that a model looks at.

Shapes: S pixels of a side.

Limits hold before anything is decoded: a small file may unpack to gigabytes. Called by the data
stage and by inference, so a model is asked in the pixels that it was taught with. Pillow is
imported where it is needed. Never normalises: `pyfsb.models.pixels` does.

Source of sizes and cuts: what `CLIPImageProcessor` and `ViTImageProcessor` of Transformers do.
That photographs are turned upright (EXIF) is our choice; the original leaves them lying.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import ConfigError, DataError

MAX_IMAGE_BYTES: Final = 32 << 20
"""Bytes of an image file at most (our choice)."""
MAX_IMAGE_PIXELS: Final = 50_000_000
"""Pixels of an image at most, as stored and as scaled; 150 MB as RGB (our choice)."""
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""Kinds of files that are opened; of moving ones the first picture counts."""
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
"""How their names end."""
BICUBIC: Final = 3
"""Pillow's number of the filter that CLIP scales with."""
_BROKEN: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error, zlib.error)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageShape:
    """How an image becomes a square."""

    size: int
    """Pixels of a side, S."""
    resize_to: int | None = None
    """Pixels that the shorter side is scaled to before the middle is cut out. None scales both
    sides to S, whatever the image's own ratio."""
    resample: int = BICUBIC
    """Pillow's number of the filter."""


def middle_of(size: int) -> ImageShape:
    """Return the shape that scales the shorter side and cuts out the middle, as CLIP has it."""
    return ImageShape(size=size, resize_to=size)


def read_image(path: Path, shape: ImageShape) -> Pixels:
    """Read an image file as `decode_image` does.

    Raises:
        DataError: The file is missing, too large or no image.
    """
    try:
        num_bytes = path.stat().st_size
        if num_bytes > MAX_IMAGE_BYTES:
            raise DataError(_too_large(num_bytes))
        return decode_image(path.read_bytes(), shape)
    except OSError as exc:
        raise DataError(f"cannot be read: {exc.strerror or exc}") from None


def decode_image(data: bytes, shape: ImageShape) -> Pixels:
    """Return the square of an image, [3, S, S], RGB.

    Args:
        data: A file's bytes.
        shape: What is wanted.

    Raises:
        DataError: It is no image of a known kind, broken, or has too many bytes or pixels.
        ConfigError: Pillow is not installed.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise DataError(_too_large(len(data)))
    image_module, ops = _load_pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns where the limit below refuses
            image = image_module.open(io.BytesIO(data), formats=FORMATS)
            _check_pixels(image.width, image.height)
            upright = ops.exif_transpose(image).convert("RGB")
            return _square(upright, shape)
    except image_module.UnidentifiedImageError:
        raise DataError(f"no image of a known kind ({', '.join(FORMATS)})") from None
    except (*_BROKEN, image_module.DecompressionBombError) as exc:
        raise DataError(f"a broken image: {exc or type(exc).__name__}") from None


def _square(image: Any, shape: ImageShape) -> Pixels:
    size = shape.size
    if shape.resize_to is None:
        scaled = image.resize((size, size), resample=shape.resample)
    else:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        longer = int(shape.resize_to * long / short)
        _check_pixels(shape.resize_to, longer)
        sides = (shape.resize_to, longer) if width <= height else (longer, shape.resize_to)
        scaled = image.resize(sides, resample=shape.resample)
        left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
        scaled = scaled.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1))


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise DataError(
            f"{width} x {height} pixels, more than {MAX_IMAGE_PIXELS:,}; scale it down first"
        )


def _too_large(num_bytes: int) -> str:
    return f"{num_bytes:,} bytes, more than {MAX_IMAGE_BYTES:,}; scale it down first"


def _load_pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ConfigError(
            "images need Pillow, which is not installed; pip install 'fengshenbang[data]'"
        ) from None
    return Image, ImageOps
