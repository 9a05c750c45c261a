# SPDX-License-Identifier: Apache-2.0
"""Rows with images: every published form, and errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pyfsb.config import ObjectiveName, RunSpec
from pyfsb.data.caption_rows import (
    IMAGES_NAME,
    CaptionRow,
    load_caption_rows,
    load_labelled_images,
    open_images,
    write_images,
)
from pyfsb.data.image_files import middle_of, read_image
from pyfsb.data.image_sets import load_image_rows, shape_of, texts_of
from pyfsb.errors import DataError
from tests.helpers.pictures import write

SHAPE = middle_of(16)


def lines(path: Path, *rows: dict) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_beside_their_images_and_below_a_root(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.png")
    write(tmp_path / "other" / "b.jpg", seed=1)
    path = lines(
        tmp_path / "set" / "rows.jsonl",
        {"image": "a.png", "text": "红色", "id": 3},
        {"image": "b.jpg", "text": "ＡＢ　蓝色"},
        {"image": "a.png", "text": "又是红色"},
    )
    rows = load_caption_rows(path, root=str(tmp_path / "other"))
    made = write_images(rows, tmp_path / IMAGES_NAME, SHAPE)
    assert [row.number for row in made] == [0, 1, 0]
    assert made[1].to_sample().text == "AB 蓝色"
    images = open_images(tmp_path, size=16)
    assert images.shape == (2, 3, 16, 16)
    np.testing.assert_array_equal(images[1], read_image(tmp_path / "other" / "b.jpg", SHAPE))
    again = lines(tmp_path / "run.jsonl", *(row.to_json() for row in made))
    assert str(tmp_path) not in again.read_text()
    loaded = load_caption_rows(again)
    assert [row.to_sample() for row in loaded] == [row.to_sample() for row in made]


def test_tables_as_published(tmp_path: Path) -> None:
    write(tmp_path / "images" / "7" / "a.jpg")
    (tmp_path / "release").mkdir()
    table = tmp_path / "release" / "part.csv"
    table.write_text(
        ",class,name,caption,used,score\n0,7,a.jpg,一只猫,1,0.3\n1,7,gone.jpg,一只狗,0,0.1\n",
        encoding="utf-8",
    )
    (row,) = load_caption_rows(table)
    assert (row.image, row.text) == ("7/a.jpg", "一只猫")
    assert Path(row.path) == tmp_path / "images" / "7" / "a.jpg"


def test_a_folder_of_images_and_captions(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a.jpg")):
        write(tmp_path / name, seed=number)
        (tmp_path / name).with_suffix(".txt").write_text(f"图{number}\n", encoding="utf-8")
    assert [row.text for row in load_caption_rows(tmp_path)] == ["图1", "图0"]
    (row,) = load_caption_rows(tmp_path / "b.txt")
    assert (row.image, row.text) == ("b.png", "图0")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.png has no caption: expected b\.txt"):
        load_caption_rows(tmp_path)
    (tmp_path / "c.txt").write_text("图", encoding="utf-8")
    with pytest.raises(DataError, match=r"c\.txt: no image beside it; expected one"):
        load_caption_rows(tmp_path / "c.txt")


def test_wrong_rows_are_named_with_their_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    path = lines(
        tmp_path / "rows.jsonl",
        {"image": "a.png", "text": "好"},
        {"image": "gone.png", "text": "好"},
        {"image": "a.png", "text": " "},
        {"image": "a.png", "caption": "好"},
        {"image": "a.png", "text": "好", "number": -1},
    )
    with pytest.raises(DataError) as caught:
        load_caption_rows(path)
    text = str(caught.value)
    assert "4 wrong rows" in text
    assert f"line 2: image 'gone.png': no such file in {tmp_path}" in text
    assert all(f"line {number}:" in text for number in (3, 4, 5))
    assert "line 1:" not in text
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no rows"):
        load_caption_rows(tmp_path / "empty.jsonl")


def test_broken_images_are_named_with_their_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    path = lines(
        tmp_path / "rows.jsonl",
        *({"image": f"{name}.png", "text": "好"} for name in ("a", "b", "c")),
    )
    with pytest.raises(DataError) as caught:
        write_images(load_caption_rows(path), tmp_path / IMAGES_NAME, SHAPE)
    text = str(caught.value)
    assert "2 images that cannot be used" in text
    assert "rows.jsonl: line 2: image" in text
    assert "no image of a known kind" in text
    assert "rows.jsonl: line 3: image" in text


def test_fields_of_places_are_not_read_from_files(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    path = lines(
        tmp_path / "rows.jsonl", {"image": "a.png", "text": "好", "path": "/etc/x", "place": "y"}
    )
    (row,) = load_caption_rows(path)
    assert row.path == str(tmp_path / "a.png")
    assert row.place == "rows.jsonl: line 1"


def test_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    path = lines(tmp_path / "rows.jsonl", {"image": "a.png", "label": "猫"})
    (row,) = load_labelled_images(path)
    with pytest.raises(DataError, match="has not read its image yet"):
        row.to_sample()
    (row,) = load_image_rows(path, ObjectiveName.IMAGE_LABELS)
    assert list(texts_of([row])) == []
    assert list(texts_of([CaptionRow(image="a", text="好")])) == ["好"]


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no array of images"):
        open_images(tmp_path, size=16)
    np.save(tmp_path / IMAGES_NAME, np.zeros((2, 3, 16, 16), np.uint8))
    with pytest.raises(DataError, match="2 x 3 x 16 x 16 .* wants images of 3 x 32 x 32"):
        open_images(tmp_path, size=32)
    (tmp_path / IMAGES_NAME).write_bytes(b"no array")
    with pytest.raises(DataError, match="no array of images"):
        open_images(tmp_path, size=16)


@pytest.mark.parametrize(
    ("name", "config", "size"),
    [
        ("Taiyi-CLIP-Roberta-102M-Chinese", {}, 224),
        ("Taiyi-CLIP-Roberta-102M-Chinese", {"vision_config.image_size": 32}, 32),
        ("Taiyi-vit-87M-D", {"image_size": 48}, 48),
    ],
    ids=str,
)
def test_images_have_the_size_of_the_model(name: str, config: dict, size: int) -> None:
    values = {"name": "a", "output": "b", "model": {"name": name, "config": config}}
    values["data"] = {"rows": ["rows.jsonl"]}
    assert shape_of(RunSpec.model_validate(values)) == middle_of(size)
