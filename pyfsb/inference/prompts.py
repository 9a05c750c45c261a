# SPDX-License-Identifier: Apache-2.0
"""The words around a text that a model was taught to answer to, and where its answer ends.

They stand in the model's config (`prompt_template`, `prompt_end`), because they belong to the
weights; called by the predictors of families generate and rewrite. Never runs a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

from pyfsb.errors import ConfigError
from pyfsb.objectives.row_objective import PLACE

Encode: TypeAlias = Callable[[str, str], list[int]]
"""From a text and its template, as `plain_text.make_tokenize` takes them, to token ids."""
_OPENINGS: Final = {"”": "“", "’": "‘", "」": "「", "』": "『", "》": "《"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A template, such as `“{text}”改写后是“` that ends with `”`."""

    template: str = PLACE
    """What the model reads, with {text} once."""
    end: str = ""
    """What ends the answer before the model's own end token; empty: nothing does. A closing quote
    ends it only where no opening one of the answer waits for it."""
    in_parts: bool = False
    """True: what stands before the text, the text and what stands behind are tokenised apart, as
    training does that reads texts from shards. Tokenizers that mark where a text begins
    (SentencePiece) give other tokens then."""

    def __post_init__(self) -> None:
        """Refuse a template that has no place for the text, or two."""
        if self.template.count(PLACE) != 1:
            raise ConfigError(f"prompt template {self.template!r}: expected {PLACE} once")

    @classmethod
    def of(cls, config: Any, *, template: str | None = None, end: str | None = None) -> Self:
        """Return the prompt of a model.

        Args:
            config: The model's; may have `prompt_template`, `prompt_end`, `prompt_in_parts`.
            template: Used instead of the config's.
            end: Likewise.

        Raises:
            ConfigError: {text} does not stand in the template once.
        """
        if template is None:
            template = getattr(config, "prompt_template", None) or PLACE
        if end is None:
            end = getattr(config, "prompt_end", None) or ""
        return cls(
            template=template, end=end, in_parts=bool(getattr(config, "prompt_in_parts", False))
        )

    @property
    def is_plain(self) -> bool:
        """True: the text alone."""
        return self.template == PLACE

    def fill(self, text: str) -> str:
        """Return what the model reads."""
        return self.template.replace(PLACE, text)

    def encode(self, text: str, encode: Encode) -> list[int]:
        """Return the tokens of what the model reads."""
        if not self.in_parts:
            return encode(text, self.template)
        before, behind = self.template.split(PLACE)
        parts = (("", before), (text, PLACE), ("", behind))
        return [
            token
            for own, around in parts
            if around.replace(PLACE, own)
            for token in encode(own, around)
        ]

    def fit(
        self, text: str, encode: Encode, room: int, *, keeps_start: bool
    ) -> tuple[list[int], bool]:
        """Encode the filled template, with less of the text where all of it does not fit.

        Args:
            text: What stands in the template.
            encode: Returns the token ids of a text in a template.
            room: Tokens that fit.
            keeps_start: True cuts the text at its end, False at its beginning.

        Returns:
            Token ids, and whether text was cut off.

        Raises:
            ConfigError: The template alone is longer than the room.
        """
        ids = self.encode(text, encode)
        if len(ids) <= room:
            return ids, False
        best = self.encode("", encode)
        if len(best) > room:
            raise ConfigError(
                f"prompt template {self.template!r}: {len(best)} tokens, expected at most {room}"
            )
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            ids = self.encode(text[:middle] if keeps_start else text[-middle:], encode)
            if len(ids) <= room:
                fits, best = middle, ids
            else:
                too_long = middle
        return best, True

    def find_end(self, answer: str) -> int | None:
        """Return where an answer ends; None: it goes on."""
        if not self.end:
            return None
        opening = _OPENINGS.get(self.end)
        if opening is None:
            place = answer.find(self.end)
            return None if place < 0 else place
        depth = 0
        for place, char in enumerate(answer):
            if char == opening:
                depth += 1
            elif char == self.end:
                if depth == 0:
                    return place
                depth -= 1
        return None

    def trim(self, answer: str) -> str:
        """Return an answer up to its end."""
        return answer[: self.find_end(answer)]
