# SPDX-License-Identifier: Apache-2.0
"""Tokenizers other than BERT's in the data stage: unigram, byte-BPE, jieba's words.

Where a token begins in the text decides whether a word or a sentence begins with it: words are
those of the segmenter, as for WordPiece. A token that reaches over several words joins them, and
of the bytes of one character only the first may begin a word. What reads like a special token in a
document is text. Called by the data stage's workers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pyfsb.data.segmenting import Cutter, load_cutter, word_starts
from pyfsb.data.sentences import sentence_starts
from pyfsb.data.tokenizer_files import TokenizerParts
from pyfsb.data.tokenizing import (
    CorpusTokenizer,
    DocumentTokenizer,
    TokenizedDocument,
    is_outside_runs,
    mark,
)
from pyfsb.tokenizers import jieba_wordpiece


def make_tokenizer(parts: TokenizerParts, *, segmenter: str) -> CorpusTokenizer:
    """Return what turns documents into tokens.

    Args:
        parts: Of the tokenizer.
        segmenter: `rjieba` or `jieba`, for word bits.

    Raises:
        ConfigError: The segmenter is not installed.
    """
    if parts.kind == "jieba_wordpiece":
        return JiebaTokenizer(parts, segmenter=segmenter)
    cut = load_cutter(segmenter)
    if parts.backend is None:
        return DocumentTokenizer(parts.pieces, lowercase=parts.lowercase, cut=cut)
    return OffsetTokenizer(parts.backend, cut=cut)


class OffsetTokenizer:
    """Any tokenizer of the `tokenizers` library."""

    def __init__(self, backend: str, *, cut: Cutter) -> None:
        """Build it.

        Args:
            backend: Its JSON.
            cut: A word segmenter from `load_cutter`.
        """
        self._tokenizer = Tokenizer.from_str(hide_specials(backend))
        self._cut = cut

    def tokenize_batch(self, texts: Sequence[str]) -> list[TokenizedDocument]:
        """Return the tokens of normalised documents."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            self._describe(text, encoding) for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _describe(self, text: str, encoding: Any) -> TokenizedDocument:
        ids = np.array(encoding.ids, dtype=np.int32)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        positions = _without_space(offsets, points)
        # A token that begins before the last one ended is a further byte of one character.
        is_further = positions[1:] < np.maximum.accumulate(offsets[:-1, 1])
        is_own = ~np.concatenate((np.zeros(min(1, ids.size), dtype=np.bool_), is_further))
        is_word = np.concatenate((word_starts(text, self._cut), [True]))
        is_word[:-1] |= is_outside_runs(points)
        return _document(text, ids, positions, is_word[positions] & is_own)


class JiebaTokenizer:
    """jieba's words, and WordPiece for those that the vocabulary lacks (Pegasus)."""

    def __init__(self, parts: TokenizerParts, *, segmenter: str) -> None:
        """Build it.

        Args:
            parts: Of the tokenizer.
            segmenter: `rjieba` or `jieba`.
        """
        self._ids = {piece: number for number, piece in enumerate(parts.pieces)}
        self._unknown = self._ids[jieba_wordpiece.UNKNOWN]
        self._splitter = jieba_wordpiece.JiebaWordPiece(
            self._ids, lowercase=parts.lowercase, cut=jieba_wordpiece.load_cutter(segmenter)
        )

    def tokenize_batch(self, texts: Sequence[str]) -> list[TokenizedDocument]:
        """Return the tokens of normalised documents; words are those that it cuts itself."""
        return [self._tokenize(text) for text in texts]

    def _tokenize(self, text: str) -> TokenizedDocument:
        pieces = list(self._splitter.split(text))
        ids = [self._ids.get(piece.text, self._unknown) for piece in pieces]
        positions = [piece.start for piece in pieces]
        words = [piece.is_word_start for piece in pieces]
        return _document(
            text,
            np.array(ids, dtype=np.int32),
            np.array(positions, dtype=np.int64),
            np.array(words, dtype=np.bool_),
        )


def hidden_names(backend: str) -> dict[str, str]:
    """Return the name that `hide_specials` gives to each special token of a tokenizer's JSON."""
    return {
        added["content"]: f"\0{added['id']}\0"
        for added in json.loads(backend)["added_tokens"]
        if added["special"]
    }


def hide_specials(backend: str, *, keeps_frame: bool = False) -> str:
    """Return a tokenizer's JSON with special tokens under names that no normalised text holds.

    Ids stay: only the names change, in the list of added tokens and among the model's pieces, and
    no merge makes one of them.

    Args:
        backend: The JSON.
        keeps_frame: Keep what puts special tokens around texts; it goes by ids.
    """
    parts = json.loads(backend)
    if not keeps_frame:
        parts["post_processor"] = None
    parts["truncation"] = parts["padding"] = None
    hidden = hidden_names(backend)
    for added in parts["added_tokens"]:
        if added["content"] in hidden:
            # A normaliser would take the zeros away and leave a number, which texts do hold.
            added |= {"content": hidden[added["content"]], "normalized": False}
    model = parts["model"]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _makes(pair, hidden)]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden.get(name, name): number for name, number in model["vocab"].items()}
    else:
        model["vocab"] = [[hidden.get(name, name), score] for name, score in model["vocab"]]
    if model.get("unk_token") in hidden:
        model["unk_token"] = hidden[model["unk_token"]]
    return json.dumps(parts)


def _makes(pair: str | list[str], hidden: Mapping[str, str]) -> bool:
    """Say whether a merge makes a hidden piece, or takes one."""
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return bool({left, right, left + right} & hidden.keys())


def _document(
    text: str,
    ids: NDArray[np.int32],
    positions: NDArray[np.int64],
    words: NDArray[np.bool_],
) -> TokenizedDocument:
    """Put a document together; its first token begins a word and a sentence."""
    sentences = mark(np.searchsorted(positions, sentence_starts(text)), ids.size)
    words[:1] = sentences[:1] = True
    return TokenizedDocument(
        ids=ids, word_starts=words, sentence_starts=sentences, positions=positions
    )


def _without_space(offsets: NDArray[np.int64], points: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return where tokens begin once a space in front, which many kinds hold, is passed over."""
    starts, stops = offsets.T
    is_space = np.concatenate((points == ord(" "), [False]))
    found: NDArray[np.int64] = starts + (is_space[starts] & (stops - starts > 1))
    return found
