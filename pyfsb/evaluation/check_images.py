# SPDX-License-Identifier: Apache-2.0
"""Images that the model check trains tiny models of images on: coloured shapes, drawn here.

Captions and labels say what was drawn, so that a tiny model learns something in twenty steps.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyfsb.config import ObjectiveName
from pyfsb.data.image_files import Pixels

ROWS_NAME: Final = "rows.jsonl"
_FOLDER: Final = "images"
_SIZE: Final = 40
_COLOURS: Final = {
    "红色": (220, 30, 30), "绿色": (30, 180, 60), "蓝色": (40, 70, 220), "黄色": (240, 210, 40),
}  # fmt: skip
_SHAPES: Final = ("圆形", "方形", "三角形", "横条", "竖条", "十字")


def draw_shape(colour: str, shape: str) -> Pixels:
    """Return a shape on white, [height, width, 3].

    Args:
        colour: One of 红色, 绿色, 蓝色, 黄色.
        shape: One of 圆形, 方形, 三角形, 横条, 竖条, 十字.
    """
    down, right = np.mgrid[:_SIZE, :_SIZE] - _SIZE / 2 + 0.5
    half, thin = _SIZE * 0.35, _SIZE * 0.12
    inside = (np.abs(down) < half) & (np.abs(right) < half)
    drawn = {
        "圆形": down**2 + right**2 < half**2,
        "方形": inside,
        "三角形": inside & (np.abs(right) < (down + half) / 2),
        "横条": inside & (np.abs(down) < thin),
        "竖条": inside & (np.abs(right) < thin),
        "十字": inside & ((np.abs(down) < thin) | (np.abs(right) < thin)),
    }[shape]
    image = np.full((_SIZE, _SIZE, 3), 255, dtype=np.uint8)
    image[drawn] = _COLOURS[colour]
    return image


def write_image_rows(objective: ObjectiveName, folder: Path) -> str:
    """Write 24 images, every shape in every colour, and their rows; returns the rows' file name.

    Args:
        objective: contrastive: rows with captions; otherwise with the shape as label.
        folder: Where rows go; images in a folder beside them.
    """
    from PIL import Image

    (folder / _FOLDER).mkdir()
    rows: list[dict[str, Any]] = []
    for colour in _COLOURS:
        for shape in _SHAPES:
            name = f"{_FOLDER}/{len(rows)}.png"
            Image.fromarray(draw_shape(colour, shape)).save(folder / name)
            says = (
                {"text": f"白色背景上的{colour}{shape}"}
                if objective is ObjectiveName.CONTRASTIVE
                else {"label": shape}
            )
            rows.append({"image": name, **says})
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / ROWS_NAME).write_text("".join(lines), encoding="utf-8")
    return ROWS_NAME


def sample_image() -> str:
    """Return one of the images as requests hold it, PNG in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(draw_shape("红色", "圆形")).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
