# SPDX-License-Identifier: Apache-2.0
"""Vocabulary pieces back to text; WordPiece knows no spaces, so Chinese rules say where they are.

Other tokenizers keep their spaces and bytes inside the pieces and decode themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase

_CONTINUES: Final = "##"
"""Prefix of a WordPiece piece that continues a word."""
_HALF_CHARACTER: Final = "\ufffd"
"""What a decoder gives for bytes that are not a whole character."""


def is_wordpiece(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Say whether a tokenizer's vocabulary is WordPiece."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and isinstance(backend.model, WordPiece)


def decode_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of tokens without the special ones.

    A last character that the tokens hold only some bytes of is left out.
    """
    if not is_wordpiece(tokenizer):
        text = tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text).rstrip(_HALF_CHARACTER)
    special = set(tokenizer.all_special_tokens)
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    return join_pieces([piece for piece in pieces if piece not in special])


def join_pieces(pieces: Sequence[str]) -> str:
    """Join WordPiece pieces into Chinese text: spaces stand between two Latin words only."""
    text = ""
    for piece in pieces:
        text = _append(text, piece)
    return text


def fill_text(tokenizer: PreTrainedTokenizerBase, text: str, pieces: Sequence[str]) -> str:
    """Put pieces at the first masks of a text, joined as the text would be written."""
    mask = str(tokenizer.mask_token)
    joins_words = is_wordpiece(tokenizer)
    filled, *parts = text.split(mask)
    for number, part in enumerate(parts):
        if number >= len(pieces):
            filled += mask + part
        elif joins_words:
            filled = _join_words(_append(filled, pieces[number]), part)
        else:
            filled += tokenizer.convert_tokens_to_string([pieces[number]]) + part
    return filled


def _append(text: str, piece: str) -> str:
    if piece.startswith(_CONTINUES):
        return text.rstrip(" ") + piece.removeprefix(_CONTINUES)
    return _join_words(text, piece)


def _join_words(left: str, right: str) -> str:
    is_word_break = all(char.isascii() and char.isalnum() for char in (left[-1:], right[:1]))
    return f"{left} {right}" if is_word_break else left + right
