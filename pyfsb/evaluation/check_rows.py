# SPDX-License-Identifier: Apache-2.0
"""Rows that the model check trains on where an objective learns from rows, and what it asks then.

Made of the sentences of `check_texts`, so that a tiny model learns something in twenty steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pyfsb.config import Family, ObjectiveName
from pyfsb.data.image_sets import IMAGE_OBJECTIVES
from pyfsb.evaluation.check_images import sample_image, write_image_rows
from pyfsb.evaluation.check_texts import sample_texts
from pyfsb.inference.choose import ChoiceInput
from pyfsb.inference.extract import ExtractionInput
from pyfsb.inference.image_text import ImageTextInput
from pyfsb.inference.images import ImageInput
from pyfsb.inference.protocol import TextInput

ROWS_NAME: Final = "rows.jsonl"
_PLACES: Final = ("北京", "上海", "学校里", "图书馆", "火车站", "长江边")
_WHO: Final = ("老师", "医生", "工程师", "邻居", "孩子们", "研究人员", "司机", "店主")
_TEXT: Final = "今天早上，老师在北京读了一本新书。"
_NUM_ROWS: Final = 160


def write_rows(objective: ObjectiveName, folder: Path) -> str:
    """Write the rows of an objective; returns the file's name."""
    if objective in IMAGE_OBJECTIVES:
        return write_image_rows(objective, folder)
    rows = [_ROWS[objective](number, text) for number, text in enumerate(_first_sentences())]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / ROWS_NAME).write_text("".join(lines), encoding="utf-8")
    return ROWS_NAME


def sample_input(family: Family, mask_token: str) -> Any:
    """Return one input for a family's predictor.

    Args:
        family: What is asked.
        mask_token: What the tokenizer calls a hidden token.
    """
    if family is Family.IMAGE_TEXT:
        return ImageTextInput(image=sample_image(), texts=("红色圆形", "蓝色三角形"))
    if family is Family.CLASSIFY_IMAGE:
        return ImageInput(image=sample_image())
    if family is Family.CHOOSE:
        return ChoiceInput(text=_TEXT, question="在哪里？", choices=_PLACES[:3])
    if family is Family.EXTRACT:
        return ExtractionInput(text=_TEXT, kinds=("人物", "地点"))
    if family is Family.FILL_MASK:
        return TextInput(text=f"今天早上，老师在{mask_token}京读了一本新书。")
    if family is Family.PAIR:
        return TextInput(text=_TEXT, text_pair="老师在读书。")
    if family is Family.ANSWER:
        return TextInput(text="老师在哪里？", text_pair=_TEXT)
    return TextInput(text=_TEXT)


def _first_sentences() -> list[str]:
    return [text.split("。")[0].split("！")[0] + "。" for text in sample_texts()][:_NUM_ROWS]


def _choice(number: int, text: str) -> dict[str, Any]:
    answer = _found(text, _PLACES)
    others = [place for place in _PLACES if place != answer]
    options = [*others[:2]]
    options.insert(number % 3, answer)
    return {
        "texta": text, "textb": "", "question": "在哪里？", "choice": options, "answer": answer,
        "label": options.index(answer), "id": number,
    }  # fmt: skip


def _extraction(number: int, text: str) -> dict[str, Any]:
    choices = [
        {"entity_type": kind, "label": 0, "entity_list": [_entity(text, _found(text, names))]}
        for kind, names in (("人物", _WHO), ("地点", _PLACES))
    ]
    return {
        "task_type": "抽取任务", "subtask_type": "实体识别", "text": text, "choices": choices,
        "id": number,
    }  # fmt: skip


def _entity(text: str, name: str) -> dict[str, Any]:
    start = text.index(name)
    return {"entity_name": name, "entity_idx": [[start, start + len(name) - 1]]}


def _chat(number: int, text: str) -> dict[str, Any]:
    del number
    return {"task": "问答", "prompt": [f"{text}在哪里？"], "output": [_found(text, _PLACES)]}


def _rewriting(number: int, text: str) -> dict[str, Any]:
    return {"text": text, "target": text.split("，")[-1], "id": number}


def _found(text: str, names: tuple[str, ...]) -> str:
    return next(name for name in names if name in text)


_ROWS: Final[dict[ObjectiveName, Callable[[int, str], dict[str, Any]]]] = {
    ObjectiveName.MULTIPLE_CHOICE: _choice,
    ObjectiveName.EXTRACTION: _extraction,
    ObjectiveName.SFT: _chat,
    ObjectiveName.REWRITING: _rewriting,
}
