# SPDX-License-Identifier: Apache-2.0
"""Images as squares: as transformers' own processors make them, and never more than the limits."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from pyfsb.data import image_files
from pyfsb.data.image_files import ImageShape, decode_image, middle_of, read_image
from pyfsb.errors import DataError
from tests.helpers.pictures import draw, to_bytes, write


@pytest.mark.parametrize("sides", [(30, 20), (20, 30), (16, 16), (9, 40), (101, 67)], ids=str)
def test_squares_are_those_of_transformers(sides: tuple[int, int]) -> None:
    image = draw(*sides)
    plain = {"do_rescale": False, "do_normalize": False}
    middle = CLIPImageProcessorPil(size={"shortest_edge": 18}, crop_size=16, **plain)
    whole = ViTImageProcessorPil(size={"height": 16, "width": 16}, **plain)
    for processor, shape in (
        (middle, ImageShape(size=16, resize_to=18)),
        (whole, ImageShape(size=16, resample=2)),
    ):
        expected = processor(image)["pixel_values"][0]
        found = decode_image(to_bytes(image), shape)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_kinds_and_colours(kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "P"):
        pytest.skip("a JPEG has no palette")
    found = decode_image(to_bytes(draw().convert(mode), kind), middle_of(16))
    assert found.shape == (3, 16, 16)
    if mode == "L":
        assert np.abs(found[0].astype(int) - found[1]).max() <= 2


def test_photographs_stand_upright() -> None:
    image = draw(30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = decode_image(to_bytes(image, "PNG", exif=exif), middle_of(16))
    upright = image.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(turned, decode_image(to_bytes(upright), middle_of(16)))


def bomb(width: int, height: int) -> bytes:
    """Return the beginning of a PNG that says how large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no image of a known kind"),
        (b"hello", r"no image of a known kind \(JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known kind"),
        (to_bytes(draw(200, 200))[:2000], "a broken image"),
        (to_bytes(draw(200, 200), "JPEG")[:1000], "a broken image"),
        (bomb(9000, 9000), r"9000 x 9000 pixels, more than 50,000,000"),
        (bomb(60000, 60000), "a broken image: .*bomb"),
        (to_bytes(draw(60000, 1)), r"16 x 960000 pixels|a broken image|more than"),
    ],
    ids=["empty", "text", "eps", "cut-png", "cut-jpeg", "large", "bomb", "ribbon"],
)
def test_what_is_no_image_is_refused(data: bytes, text: str) -> None:
    shape = middle_of(1024 if "16 x" in text else 16)
    with pytest.raises(DataError, match=text):
        decode_image(data, shape)


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.png")
    monkeypatch.setattr(image_files, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(DataError, match="bytes, more than 100"):
        read_image(path, middle_of(16))
    with pytest.raises(DataError, match="bytes, more than 100"):
        decode_image(path.read_bytes(), middle_of(16))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_image(tmp_path / "a.png", middle_of(16))
