# SPDX-License-Identifier: Apache-2.0
"""CLIP: every caption against every image of a batch; which ones belong together is all there is.

Shapes: B pairs, T tokens of a caption, S pixels of a side, D width of the space.

Images come as pixels, or as vectors that a frozen tower computed once. Pixels may be cut at random,
another part in each pass (`image_crops`). By default they are not, or a frozen tower's vectors
could not be kept (our choice; the original cuts out 90 to 100 %). Implemented for
`pyfsb.training.row_source`; a pure function of its arguments.

Source: fengshen/examples/pretrain_taiyi_clip of Fengshenbang-LM c8fb7b8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyfsb.errors import ConfigError, DataError
from pyfsb.objectives.image_crops import Box, RandomCrop, crop
from pyfsb.objectives.row_objective import RowBatch, SampleKey, Small, Tokenize, pad_to

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSample:
    """A caption and its image."""

    text: str
    """The caption."""
    image: int
    """Number of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedCaption:
    """What is kept of a pair."""

    ids_T: Small
    """Tokens of the caption, with those that frame it."""
    image: int
    """Number of the image."""
    is_truncated: bool
    """True: the caption was cut at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTable:
    """The images that samples name by number."""

    pixels: NDArray[np.uint8]
    """[N, 3, S, S]; usually a file that is mapped into memory."""
    mean: Rgb
    """What is taken from each colour, of pixels in [0, 1]."""
    std: Rgb
    """What the rest is divided by."""
    vectors: NDArray[np.float32] | None = None
    """[N, D], of a frozen tower: stand in for the pixels. None: there are none."""

    def __post_init__(self) -> None:
        """Check that both speak of the same images."""
        if self.vectors is not None and len(self.vectors) != len(self.pixels):
            raise DataError(f"{len(self.vectors)} vectors of {len(self.pixels)} images")

    def check(self, number: int) -> None:
        """Refuse a number that no image has.

        Raises:
            DataError: Names it.
        """
        if not 0 <= number < len(self.pixels):
            raise DataError(f"image {number}: there are {len(self.pixels)}")

    def take(
        self, numbers: Sequence[int], boxes: Sequence[Box | None] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return what a loss takes of images: `image_vectors`, or else `pixel_values`.

        Args:
            numbers: Of the images.
            boxes: What is cut out of the pixels of each; None: it stays whole.
        """
        if self.vectors is not None:
            return {"image_vectors": np.stack([self.vectors[number] for number in numbers])}
        shown = [
            self.pixels[number] if box is None else crop(self.pixels[number], box)
            for number, box in zip(numbers, boxes or [None] * len(numbers), strict=True)
        ]
        pixels = np.stack(shown)
        return {"pixel_values": normalise_pixels(pixels, self.mean, self.std)}


def normalise_pixels(pixels: NDArray[np.uint8], mean: Rgb, std: Rgb) -> NDArray[np.float32]:
    """Return pixels as a vision tower takes them.

    Args:
        pixels: [B, 3, S, S].
        mean: What is taken from each colour, of pixels in [0, 1].
        std: What the rest is divided by.
    """
    scale, offset = (np.asarray(values, dtype=np.float32)[:, None, None] for values in (std, mean))
    return (pixels.astype(np.float32) / np.float32(255) - offset) / scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrastive:
    """Encodes captions and collates them with their images."""

    cls: int
    """Token before a caption."""
    sep: int
    """Token behind it."""
    pad: int
    """Token that fills rows."""
    max_tokens: int
    """Tokens of a caption at most, those around it included; longer ones are cut at their end."""
    images: ImageTable
    """All images."""
    crop: RandomCrop | None = None
    """How images are cut in training. None: they are not."""

    def __post_init__(self) -> None:
        """Refuse to cut images that are vectors.

        Raises:
            ConfigError: Both are there.
        """
        if self.crop is not None and self.images.vectors is not None:
            raise ConfigError("images of which there are vectors cannot be cut at random")

    def encode(self, sample: CaptionSample, tokenize: Tokenize) -> EncodedCaption:
        """Return the tokens of a caption.

        Raises:
            DataError: It has none, or no image has the number.
        """
        self.images.check(sample.image)
        ids_T = tokenize(sample.text).ids_T
        if not ids_T.size:
            raise DataError(f"the caption {sample.text!r} has no tokens")
        room = self.max_tokens - 2
        return EncodedCaption(
            ids_T=np.concatenate(([self.cls], ids_T[:room], [self.sep])).astype(np.int32),
            image=sample.image,
            is_truncated=ids_T.size > room,
        )

    def count_tokens(self, encoded: EncodedCaption) -> int:
        """Return the tokens of a caption; every image costs the same."""
        return int(encoded.ids_T.size)

    def collate(self, encoded: Sequence[EncodedCaption], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch.

        Returns:
            `input_ids` and `attention_mask` [B, T], `pair_weights` [B], all 1 (0 keeps a pair out
            of the loss and away from the others), and `pixel_values` or `image_vectors`.
        """
        boxes = None
        if self.crop is not None:
            size = self.images.pixels.shape[-1]
            boxes = [self.crop.draw(key, size) for key in keys]
        arrays: dict[str, NDArray[Any]] = {
            "input_ids": pad_to([row.ids_T for row in encoded], fill=self.pad),
            "attention_mask": pad_to([np.ones_like(row.ids_T) for row in encoded], fill=0),
            "pair_weights": np.ones(len(encoded), dtype=np.float32),
        }
        return RowBatch(
            arrays=arrays | self.images.take([row.image for row in encoded], boxes),
            num_targets=len(encoded),
            num_tokens=sum(row.ids_T.size for row in encoded),
        )
