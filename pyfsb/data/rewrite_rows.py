# SPDX-License-Identifier: Apache-2.0
"""Rows of a text and what is to be written from it: `{"text", "target"}` and published forms.

Called by the data stage and by training; `pyfsb.objectives.rewriting` encodes what they become.
Never imports torch.

Source: {text, summary} of fengshen/examples/summary and {src, tgt} of fengshen/examples/translate
of Fengshenbang-LM c8fb7b8.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ConfigDict, model_validator

from pyfsb.data.normalizing import normalise_layout, normalise_text
from pyfsb.data.row_parsing import load_rows
from pyfsb.objectives.rewriting import RewriteSample
from pyfsb.schema import Schema

_OTHER_NAMES: Final = {"summary": "target", "tgt": "target", "src": "text"}


class RewriteRow(Schema):
    """One pair; keys that are not here are passed over, published files have several."""

    model_config = ConfigDict(extra="ignore")

    text: str
    """What is read; also called `src`."""
    target: str
    """What is written; also called `summary` or `tgt`."""
    id: str | int = ""
    """Name of the row."""

    @model_validator(mode="before")
    @classmethod
    def _take_other_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        renamed = dict(value)
        for other, name in _OTHER_NAMES.items():
            if other in renamed and name not in renamed:
                renamed[name] = renamed.pop(other)
        return renamed

    @model_validator(mode="after")
    def _texts_hold_something(self) -> Self:
        for name, text in (("text", self.text), ("target", self.target)):
            if not normalise_text(text):
                raise ValueError(f"{name} = {text!r} is empty")
        return self

    def to_sample(self, spell: Callable[[str], str] = normalise_layout) -> RewriteSample:
        """Return what the objective takes.

        Args:
            spell: How texts are written for the model: `row_objectives.find_spelling`'s.
        """
        return RewriteSample(text=spell(self.text), target=spell(self.target))


def load_rewrite_rows(path: Path) -> list[RewriteRow]:
    """Read a file of pairs.

    Raises:
        DataError: Names up to 20 wrong rows, each with its line, field and value.
    """
    return load_rows(path, lambda _: RewriteRow)
