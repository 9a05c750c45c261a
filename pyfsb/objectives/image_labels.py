# SPDX-License-Identifier: Apache-2.0
"""Images with labels: an image goes in, one of the labels comes out.

Shapes: B images, S pixels of a side.

Implemented for `pyfsb.training.row_source`; a pure function of its arguments, without randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyfsb.errors import DataError, did_you_mean, nearest_names
from pyfsb.objectives.contrastive import ImageTable
from pyfsb.objectives.row_objective import RowBatch, SampleKey, Tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image and its label."""

    label: str
    """The label."""
    image: int
    """Number of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """What is kept of a sample."""

    label: int
    """Number of the label."""
    image: int
    """Number of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLabels:
    """Encodes and collates images with labels."""

    labels: tuple[str, ...]
    """The labels, in the order of the model's outputs."""
    images: ImageTable
    """All images."""
    num_patches: int
    """Tokens that an image is to the model, its class token included."""

    def encode(self, sample: LabelledImage, tokenize: Tokenize) -> EncodedImage:
        """Return the numbers of image and label.

        Raises:
            DataError: There is no such label or image.
        """
        del tokenize
        self.images.check(sample.image)
        if sample.label not in self.labels:
            near = did_you_mean(nearest_names(sample.label, self.labels))
            raise DataError(f"label {sample.label!r} is not one of {len(self.labels)}{near}")
        return EncodedImage(label=self.labels.index(sample.label), image=sample.image)

    def count_tokens(self, encoded: EncodedImage) -> int:
        """Return the tokens that an image is to the model."""
        del encoded
        return self.num_patches

    def collate(self, encoded: Sequence[EncodedImage], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch: `pixel_values` [B, 3, S, S] and `labels` [B]."""
        del keys
        return RowBatch(
            arrays={
                **self.images.take([row.image for row in encoded]),
                "labels": np.array([row.label for row in encoded], dtype=np.int64),
            },
            num_targets=len(encoded),
            num_tokens=self.num_patches * len(encoded),
        )
