# SPDX-License-Identifier: Apache-2.0
"""Rows of dialogues, for supervised fine-tuning: `{"task", "prompt": [...], "output": [...]}`.

Called by the data stage and by training; `pyfsb.objectives.sft` encodes what they become. Never
imports torch.

Source: the jsonl of fengshen/examples/ziya_llama of Fengshenbang-LM c8fb7b8, which drops turns
that have only one side; here they are errors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, field_validator, model_validator

from pyfsb.data.normalizing import normalise_layout, normalise_text
from pyfsb.data.row_parsing import load_rows
from pyfsb.objectives.sft import ChatSample, ChatTurn
from pyfsb.schema import Schema


class ChatRow(Schema):
    """One dialogue; keys that are not here are passed over, published files have several."""

    model_config = ConfigDict(extra="ignore")

    task: str = ""
    """Kind of the dialogue, for people."""
    prompt: tuple[str, ...]
    """What is asked, turn by turn; a single text is one turn."""
    output: tuple[str, ...]
    """The answers."""
    id: str | int = ""
    """Name of the row."""

    @field_validator("prompt", "output", mode="before")
    @classmethod
    def _one_text_is_one_turn(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _turns_fit(self) -> Self:
        if not self.prompt:
            raise ValueError("prompt is empty; expected one turn at least")
        if len(self.prompt) != len(self.output):
            raise ValueError(
                f"{len(self.prompt)} prompts and {len(self.output)} outputs; expected as many of "
                "each"
            )
        for name, texts in (("prompt", self.prompt), ("output", self.output)):
            for number, text in enumerate(texts):
                if not normalise_text(text):  # zero-width characters are nothing, too
                    raise ValueError(f"{name}.{number} = {text!r} is empty")
        return self

    def to_sample(self, spell: Callable[[str], str] = normalise_layout) -> ChatSample:
        """Return what the objective takes.

        Args:
            spell: How texts are written for the model: `row_objectives.find_spelling`'s.
        """
        pairs = zip(self.prompt, self.output, strict=True)
        return ChatSample(
            turns=tuple(
                ChatTurn(question=spell(asked), answer=spell(answer)) for asked, answer in pairs
            )
        )


def load_chat_rows(path: Path) -> list[ChatRow]:
    """Read a file of dialogues.

    Raises:
        DataError: Names up to 20 wrong rows, each with its line, field and value.
    """
    return load_rows(path, lambda _: ChatRow)
