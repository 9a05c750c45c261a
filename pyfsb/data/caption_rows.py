# SPDX-License-Identifier: Apache-2.0
"""Rows of images with captions or labels, from files of a user's own and from published ones.

Forms: JSON lines `{"image": …, "text": …}` (or `"label"`), images relative to the file or to a
root; CSV with name and caption, as Taiyi's; an image with a caption file of the same name, given as
that `.txt` or as the folder of many. Called by the data stage, which keeps rows and images together
with `write_images`; training reads them back. Never imports torch.

Source: the forms that fengshen/data/taiyi_stable_diffusion_datasets of Fengshenbang-LM c8fb7b8
reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar

import numpy as np
from pydantic import ConfigDict, Field

from pyfsb import storage
from pyfsb.data.image_files import SUFFIXES, ImageShape, read_image
from pyfsb.data.normalizing import normalise_text
from pyfsb.data.readers import local_path
from pyfsb.data.row_files import read_rows
from pyfsb.errors import ConfigError, DataError, FsbError
from pyfsb.objectives.contrastive import CaptionSample
from pyfsb.objectives.image_labels import LabelledImage
from pyfsb.schema import Json, Schema, parse

IMAGES_NAME: Final = "images.npy"
"""All images of a set of rows, uint8 [N, 3, S, S]; beside the rows."""
_MAX_PROBLEMS: Final = 20
_TABLES: Final = (".csv", ".tsv")
_PUBLISHED_FOLDER: Final = "images"
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class _ImageRow(Schema):
    model_config = ConfigDict(extra="ignore")

    image: Text
    """Its file, as the row names it."""
    number: Annotated[int, Field(ge=0)] | None = None
    """Its place in images.npy; None of a row that no data stage has seen."""
    path: str = Field(default="", exclude=True)
    """Where the file was found; never written down."""
    place: str = Field(default="", exclude=True)
    """File and line of the row, for messages; never written down."""


class CaptionRow(_ImageRow):
    """An image and what is to be seen on it; keys that are not here are passed over."""

    text: Text
    """The caption."""

    def to_sample(self) -> CaptionSample:
        """Return what the objective takes, normalised as a text that is asked about.

        Raises:
            DataError: The data stage has not seen the row.
        """
        return CaptionSample(text=normalise_text(self.text), image=_number_of(self))


class LabelledImageRow(_ImageRow):
    """An image and its label; keys that are not here are passed over."""

    label: Text
    """The label."""

    def to_sample(self) -> LabelledImage:
        """Return what the objective takes.

        Raises:
            DataError: The data stage has not seen the row.
        """
        return LabelledImage(label=self.label, image=_number_of(self))


ImageRow: TypeAlias = CaptionRow | LabelledImageRow
Row = TypeVar("Row", CaptionRow, LabelledImageRow)


def load_caption_rows(path: Path, *, root: str | None = None) -> list[CaptionRow]:
    """Read images with captions and find their files; no image is opened.

    Args:
        path: JSON lines, a CSV or TSV with a header, a caption file, or a folder of such files.
        root: Folder or s3:// where images lie that are not beside the file.

    Raises:
        DataError: Names up to 20 wrong rows or missing images, each with its line.
    """
    return _load(path, root, CaptionRow)


def load_labelled_images(path: Path, *, root: str | None = None) -> list[LabelledImageRow]:
    """Read images with labels; arguments and errors are those of `load_caption_rows`."""
    return _load(path, root, LabelledImageRow)


def write_images(rows: Sequence[Row], target: Path, shape: ImageShape) -> list[Row]:
    """Write the images of rows as one array file; rows of one image share its place.

    Args:
        rows: From `load_caption_rows` or `load_labelled_images`.
        target: The file to make; training maps it into memory.
        shape: Of the images.

    Returns:
        The rows with their numbers.

    Raises:
        DataError: Names up to 20 images that are broken, missing or too large, with their lines.
    """
    numbers: dict[str, int] = {}
    for row in rows:
        numbers.setdefault(row.path, len(numbers))
    places = {row.path: row.place for row in reversed(rows)}
    size = (len(numbers), 3, shape.size, shape.size)
    images = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=size)
    problems: list[str] = []
    for path, number in numbers.items():
        try:
            images[number] = read_image(_brought(path), shape)
        except ConfigError:
            raise
        except FsbError as exc:
            problems.append(f"{places[path]}: image {path!r}: {exc}")
    images.flush()
    _refuse(problems, "images that cannot be used")
    return [row.model_copy(update={"number": numbers[row.path]}) for row in rows]


def open_images(folder: Path, *, size: int) -> np.ndarray:
    """Map the images beside rows into memory.

    Args:
        folder: Of the data stage.
        size: Pixels of a side that the model wants.

    Raises:
        DataError: They are missing or broken, or of another size.
    """
    path = folder / IMAGES_NAME
    try:
        images: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as exc:
        raise DataError(f"{path}: no array of images: {exc}") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (3, size, size):
        found = " x ".join(map(str, images.shape))
        raise DataError(
            f"{path} holds {found} ({images.dtype}); the model wants images of 3 x {size} x {size} "
            "(uint8): prepare them for this model"
        )
    return images


def _load(path: Path, root: str | None, kind: type[Row]) -> list[Row]:
    read = _read_folder if path.is_dir() else _reader_of(path)
    rows: list[Row] = []
    problems: list[str] = []
    for place, value in read(path):
        try:
            row = parse(kind, value, source=place)
            found = "" if row.number is not None else _find_image(row.image, path, root)
            rows.append(row.model_copy(update={"path": found, "place": f"{path.name}: {place}"}))
        except (ConfigError, DataError) as exc:
            text = str(exc)
            problems.append(text if text.startswith(place) else f"{place}: {text}")
    _refuse(problems, "wrong rows", path)
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows


def _refuse(problems: Sequence[str], what: str, path: Path | None = None) -> None:
    if not problems:
        return
    shown = "\n  ".join(problems[:_MAX_PROBLEMS])
    more = len(problems) - _MAX_PROBLEMS
    tail = f"\n  … and {more} more" if more > 0 else ""
    head = f"{path}: " if path else ""
    raise DataError(f"{head}{len(problems)} {what}:\n  {shown}{tail}")


Located: TypeAlias = tuple[str, Json]
"""Place of a row in its file, and its fields."""


def _reader_of(path: Path) -> Callable[[Path], Iterator[Located]]:
    if path.suffix.lower() in _TABLES:
        return _read_table
    return _read_caption_file if path.suffix.lower() == ".txt" else _read_lines


def _read_lines(path: Path) -> Iterator[Located]:
    for number, value in read_rows(path):
        yield f"line {number}", value


def _read_table(path: Path) -> Iterator[Located]:
    """Read a table; as published ones it may say name, caption, class and whether a row counts."""
    for number, value in read_rows(path):
        if "0" in (value.get("used"), value.get("success")):
            continue
        fields = dict(value)
        if "name" in value:
            fields["image"] = os.path.join(value.get("class", ""), value["name"])
        if "caption" in value:
            fields["text"] = value["caption"]
        yield f"line {number}", {name: text for name, text in fields.items() if text}


def _read_caption_file(path: Path) -> Iterator[Located]:
    """Read the caption of the one image that is named like it."""
    images = [path.with_suffix(suffix) for suffix in SUFFIXES]
    found = [image.name for image in images if image.is_file()]
    if len(found) != 1:
        raise DataError(
            f"{path}: {'no image' if not found else ' and '.join(found)} beside it; expected one "
            f"image {path.stem}{SUFFIXES[0]} (or {', '.join(SUFFIXES[1:])})"
        )
    yield path.name, {"image": found[0], "text": _read_text(path)}


def _read_folder(path: Path) -> Iterator[Located]:
    images = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
    for image in images:
        caption = image.with_suffix(".txt")
        if not caption.is_file():
            raise DataError(f"{image} has no caption: expected {caption.name} beside it")
        yield caption.name, {"image": str(image.absolute()), "text": _read_text(caption)}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: not UTF-8 at byte {exc.start}") from None


def _find_image(name: str, path: Path, root: str | None) -> str:
    """Return where an image lies: beside the file, below the root, or as published tables have it.

    Raises:
        DataError: Nowhere; names the places.
    """
    if root is not None and storage.is_s3(root):
        return storage.join(root, name)
    folders: Iterable[Path] = (path.parent, path.parent.parent / _PUBLISHED_FOLDER)
    if root is not None:
        folders = (path.parent, Path(root), path.parent.parent / _PUBLISHED_FOLDER)
    for folder in folders:
        if (folder / name).is_file():
            return str((folder / name).absolute())
    looked = path.parent if root is None else f"{path.parent} or {root}"
    raise DataError(f"image {name!r}: no such file in {looked}")


def _brought(path: str) -> Path:
    """Return a local path, brought from S3 where the image lies there."""
    folder, _, name = path.rpartition("/")
    return local_path(folder, name) if storage.is_s3(path) else Path(path)


def _number_of(row: CaptionRow | LabelledImageRow) -> int:
    if row.number is None:
        raise DataError(f"{row.place or row.image}: the data stage has not read its image yet")
    return row.number
