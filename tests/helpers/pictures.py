# SPDX-License-Identifier: Apache-2.0
"""Image files for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def draw(width: int = 30, height: int = 20, *, seed: int = 0) -> Image.Image:
    """Return an image of smooth random colours."""
    drawn = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return Image.fromarray(drawn).resize((width, height), resample=Image.Resampling.BILINEAR)


def to_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def write(path: Path, *, seed: int = 0, width: int = 30, height: int = 20) -> Path:
    """Write an image in the form that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(width, height, seed=seed).save(path)
    return path
