# SPDX-License-Identifier: Apache-2.0
"""Where Chinese sentences begin.

A sentence ends at 。！？!? or …… with the closing quotes and brackets that follow, at a newline,
and at a semicolon of its own; an ASCII full stop ends one only before a space and a capital letter.
Inside an open quotation a terminator does not end the sentence unless the quotation closes
right after it. Used to cut long documents into samples; never changes the text.

Source: our choice, after the splitter rules that the Erlangshen pretraining describes.
"""

from __future__ import annotations

import re
from itertools import pairwise

_END = re.compile(r"(?:[。！？!?]+|…+|；|;(?=\s)|\.(?=\s+[A-Z]))[”’」』）)】》〉\"']*\n*|\n+")
_OPENING = "“‘「『（【《"
_CLOSING = "”’」』）】》"
_MAX_QUOTED_CHARACTERS = 200
"""A quotation longer than this, or never closed, does not hold sentences together."""


def sentence_starts(text: str) -> list[int]:
    """Return the positions at which sentences begin, ascending, the first being 0.

    The pieces between them, joined, are the text. An empty text has no sentence.
    """
    starts = [0] if text else []
    for match in _END.finditer(text):
        position = match.end()
        if position < len(text) and not _is_inside_quotation(text, starts[-1], position):
            starts.append(position)
    return starts


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text; joined, they are the text."""
    starts = sentence_starts(text)
    return [text[start:stop] for start, stop in pairwise([*starts, len(text)])]


def _is_inside_quotation(text: str, start: int, position: int) -> bool:
    """Say whether a quotation opened in text[start:position] is closed soon after position."""
    if text[position - 1] == "\n":
        return False
    depth = 0
    for character in text[start:position]:
        depth += (character in _OPENING) - (character in _CLOSING and depth > 0)
    if depth <= 0:
        return False
    ahead = text[position : position + _MAX_QUOTED_CHARACTERS].partition("\n")[0]
    return any(character in _CLOSING for character in ahead)
