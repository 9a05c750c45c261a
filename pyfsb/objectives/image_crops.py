# SPDX-License-Identifier: Apache-2.0
"""Random cuts of images, scaled back to their size: what is seen of an image differs by pass.

Shapes: S pixels of a side.

Called by `contrastive` in training. A function of seed, pass and sample, so a resumed training cuts
as the first one would have. Never decodes an image; pixels are those that the data stage made.

Source: open_clip's training transform (RandomResizedCrop of torchvision, bicubic), which Taiyi-CLIP
was trained with. Drawing the ratio of sides among those that fit, where torchvision tries again,
and cutting the prepared square, where it cuts the whole photograph, are our choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import ConfigError
from pyfsb.objectives.row_objective import SampleKey
from pyfsb.seeding import uniform

MAX_SIDES_RATIO: Final = 4 / 3
"""Width over height of a cut at most, and its inverse at least. Source: torchvision's default."""
_PURPOSE: Final = 0x6372_6F70
"""Key of these draws: no other objective's."""
_NUM_TAPS: Final = 4
_CUBIC: Final = -0.5
"""Sharpness of the bicubic filter. Source: Pillow's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A part of a square, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCrop:
    """How images are cut."""

    min_ratio: float
    """Least share of the area that a cut keeps; the most is all of it."""
    num_samples: int
    """Samples of training: those of this number and above are for validation and stay whole."""

    def __post_init__(self) -> None:
        """Refuse a share that is none.

        Raises:
            ConfigError: Names it.
        """
        if not 0.0 < self.min_ratio <= 1.0:
            raise ConfigError(f"min_crop_ratio = {self.min_ratio}; expected above 0, at most 1")

    def draw(self, key: SampleKey, size: int) -> Box | None:
        """Return the cut of a sample in a pass; None: it stays whole.

        Args:
            key: Of the sample.
            size: Pixels of a side of its image.
        """
        if key.sample_id >= self.num_samples:
            return None
        keys = (key.seed, key.data_pass, _PURPOSE, key.sample_id)
        area, sides, left, top = uniform(*keys, np.arange(4)).tolist()
        area = self.min_ratio + (1.0 - self.min_ratio) * area
        # A width of sqrt(area * ratio) and a height of sqrt(area / ratio) are at most 1.
        widest = math.log(min(MAX_SIDES_RATIO, 1.0 / area))
        ratio = math.exp((2.0 * sides - 1.0) * widest)
        width, height = (
            min(size, max(1, round(size * math.sqrt(share))))
            for share in (area * ratio, area / ratio)
        )
        return Box(
            left=int(left * (size - width + 1)), top=int(top * (size - height + 1)),
            width=width, height=height,
        )  # fmt: skip


def crop(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Cut a part out of an image and scale it to the image's size.

    Args:
        pixels: [3, S, S].
        box: What is cut out; never larger than the image, so nothing is averaged away.
    """
    columns = _scale(pixels, box.left, box.width)
    return _scale(columns.swapaxes(1, 2), box.top, box.height).swapaxes(1, 2)


def _scale(pixels: NDArray[np.uint8], start: int, length: int) -> NDArray[np.uint8]:
    """Cut and scale the last dimension; rounded after each one, as Pillow does."""
    places_S4, weights_S4 = _taps(pixels.shape[-1], start, length)
    found = np.zeros(pixels.shape, dtype=np.float32)
    for tap in range(_NUM_TAPS):
        found += pixels[..., places_S4[:, tap]] * weights_S4[:, tap]
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def _taps(size: int, start: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the old places that each new one is made of, and their weights, [S, 4] each."""
    centres = start + (np.arange(size) + 0.5) * length / size
    places = np.floor(centres - 0.5).astype(np.int64)[:, None] + np.arange(-1, _NUM_TAPS - 1)
    is_inside = (places >= start) & (places < start + length)  # the rest was cut off
    weights = np.where(is_inside, _bicubic(np.abs(places + 0.5 - centres[:, None])), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(places, 0, size - 1), weights.astype(np.float32)


def _bicubic(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_CUBIC + 2) * distances - (_CUBIC + 3)) * distances**2 + 1
    far = (((distances - 5) * distances + 8) * distances - 4) * _CUBIC
    return np.where(distances < 1, near, np.where(distances < 2, far, 0.0))
