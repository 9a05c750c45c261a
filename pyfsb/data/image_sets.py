# SPDX-License-Identifier: Apache-2.0
"""The part of the data stage that rows of images need: files of the model's size, texts, labels.

Called by `row_sets`. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pyfsb.config import ObjectiveName, RunSpec
from pyfsb.data.caption_rows import (
    IMAGES_NAME,
    CaptionRow,
    LabelledImageRow,
    load_caption_rows,
    load_labelled_images,
    write_images,
)
from pyfsb.data.image_files import ImageShape, middle_of
from pyfsb.errors import ConfigError
from pyfsb.registry import find_model

IMAGE_OBJECTIVES: Final = frozenset({ObjectiveName.CONTRASTIVE, ObjectiveName.IMAGE_LABELS})
"""Objectives whose rows have images."""
_VISION: Final = "vision_config"
_DEFAULT_SIZE: Final = 224
"""Of CLIP and of ViT."""
Row = TypeVar("Row", CaptionRow, LabelledImageRow)


def load_image_rows(
    path: Path, objective: ObjectiveName, *, root: str | None = None
) -> list[CaptionRow] | list[LabelledImageRow]:
    """Read rows with images; arguments and errors are those of `load_caption_rows`."""
    if objective is ObjectiveName.CONTRASTIVE:
        return load_caption_rows(path, root=root)
    return load_labelled_images(path, root=root)


def store_images(rows: Sequence[Row], spec: RunSpec, folder: Path) -> list[Row]:
    """Write the images of rows beside them, in the size of a spec's model.

    Args:
        rows: From `load_image_rows`.
        spec: Names the model.
        folder: Where the rows go.

    Returns:
        The rows with the numbers of their images.

    Raises:
        DataError: Names up to 20 images that cannot be used.
    """
    return write_images(rows, folder / IMAGES_NAME, shape_of(spec))


def shape_of(spec: RunSpec) -> ImageShape:
    """Return what images become for a spec's model: the shorter side scaled, the middle cut out.

    Raises:
        ConfigError: The model's images are no squares.
    """
    entry, overrides = find_model(spec.model.name), spec.model.config
    inner = entry.config.get(_VISION)
    values: dict[str, Any] = dict(inner) if isinstance(inner, dict) else dict(entry.config)
    prefix = f"{_VISION}." if isinstance(inner, dict) else ""
    size = overrides.get(f"{prefix}image_size", values.get("image_size", _DEFAULT_SIZE))
    if not isinstance(size, int):
        raise ConfigError(f"{entry.name}: image_size = {size!r}; expected one number, the side")
    return middle_of(size)


def texts_of(rows: Sequence[CaptionRow] | Sequence[LabelledImageRow]) -> Iterator[str]:
    """Yield what a vocabulary is made of: the captions; of labelled images nothing."""
    for row in rows:
        if isinstance(row, CaptionRow):
            yield row.text
