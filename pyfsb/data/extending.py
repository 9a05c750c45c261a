# SPDX-License-Identifier: Apache-2.0
"""New pieces for an old vocabulary: continued pretraining on the texts of a new domain.

The old pieces keep their ids and the new ones stand behind them, so a checkpoint only gets more
rows. Characters that the vocabulary does not know come first, then words that it cuts most often
into several pieces. Called by the data stage; never touches a model.

Source: our choice, after the extension of LLaMA's vocabulary by hanzi for Ziya.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer

from pyfsb.data.segmenting import Cutter, cut_runs
from pyfsb.data.tokenizer_files import TokenizerParts, of_backend
from pyfsb.data.vocabulary import build_tokenizer
from pyfsb.errors import ConfigError
from pyfsb.tokenizers import jieba_wordpiece

MIN_COUNT: Final = 5
"""What occurs less often is no piece: its row would hardly be trained."""
MAX_WORD_CHARACTERS: Final = 20
_LATIN = re.compile("[A-Za-z0-9]+")
_NUM_CHECKED_TEXTS: Final = 200


def extend_parts(
    parts: TokenizerParts, texts: Iterable[str], *, num_new: int, cut: Cutter
) -> TokenizerParts:
    """Return a tokenizer with new pieces behind its own.

    Args:
        parts: The old one.
        texts: Normalised documents of the new domain.
        num_new: New pieces at most.
        cut: A word segmenter.

    Raises:
        ConfigError: Pieces cannot be added to this tokenizer without changing other texts.
    """
    texts = list(texts)
    if parts.backend is None:
        pieces = extend_vocabulary(
            parts.pieces, texts, num_new=num_new, cut=cut, count_pieces=_counter_of(parts),
            lowercase=parts.lowercase, has_words=parts.kind == "jieba_wordpiece",
        )  # fmt: skip
        return TokenizerParts(kind=parts.kind, pieces=tuple(pieces), lowercase=parts.lowercase)
    old = Tokenizer.from_str(parts.backend)
    pieces = extend_vocabulary(
        parts.pieces, texts, num_new=num_new, cut=cut, lowercase=False, has_words=True,
        count_pieces=_counter_of(parts),
    )  # fmt: skip
    new = pieces[len(parts.pieces) :]
    extended = _extend_backend(old, new, texts)
    for text in texts[:_NUM_CHECKED_TEXTS]:
        before, after = (
            one.decode(one.encode(text, add_special_tokens=False).ids) for one in (old, extended)
        )
        if len(after) != len(before) or (after != before and "\ufffd" not in before):
            raise ConfigError(
                "data.vocabulary.extend: this tokenizer puts spaces around added pieces "
                f"({before[:40]!r} would become {after[:40]!r}); it cannot be extended"
            )
    return of_backend(extended, source="data.tokenizer")


def extend_vocabulary(
    pieces: Sequence[str],
    texts: Iterable[str],
    *,
    num_new: int,
    cut: Cutter,
    count_pieces: Callable[[str], int],
    lowercase: bool,
    has_words: bool,
) -> list[str]:
    """Return old pieces and behind them new ones; ids of the old ones stay.

    Args:
        pieces: The old ones, ids in order.
        texts: Normalised documents.
        num_new: New pieces at most.
        cut: A word segmenter.
        count_pieces: How many pieces a character or word becomes; 0 where one is unknown.
        lowercase: New pieces are in lower case.
        has_words: Words of several hanzi may be pieces; else only Latin ones.
    """
    known = set(pieces)
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        shown = text.lower() if lowercase else text
        characters.update(shown)
        words.update(word for _, word in cut_runs(shown, cut) if len(word) > 1)
    unknown = {
        character: count
        for character, count in characters.items()
        if count >= MIN_COUNT and not character.isspace() and count_pieces(character) != 1
    }
    saved: dict[str, int] = {}
    for word, count in words.items():
        may_be_one = has_words or _LATIN.fullmatch(word)
        if count < MIN_COUNT or len(word) > MAX_WORD_CHARACTERS or not may_be_one:
            continue
        # A word that is unknown costs all its characters.
        saved[word] = count * ((count_pieces(word) or len(word)) - 1)
    ranked = [*_ranked(unknown), *_ranked({word: gain for word, gain in saved.items() if gain})]
    new = [piece for piece in ranked if piece not in known]
    return [*pieces, *new[:num_new]]


def _ranked(counts: dict[str, int]) -> list[str]:
    return sorted(counts, key=lambda piece: (-counts[piece], piece))


def _counter_of(parts: TokenizerParts) -> Callable[[str], int]:
    """Return a function that counts the pieces of a character or word; 0 if one is unknown."""
    if parts.kind == "jieba_wordpiece":
        ids = {piece: number for number, piece in enumerate(parts.pieces)}
        splitter = jieba_wordpiece.JiebaWordPiece(
            ids, lowercase=parts.lowercase, cut=lambda text: [text]
        )

        def count_words(text: str) -> int:
            found = splitter.tokenize(text)
            return 0 if jieba_wordpiece.UNKNOWN in found else len(found)

        return count_words
    tokenizer = (
        Tokenizer.from_str(parts.backend)
        if parts.backend
        else build_tokenizer(parts.pieces, lowercase=parts.lowercase)
    )
    unknown = _unknown_id(tokenizer)

    def count(text: str) -> int:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        return 0 if unknown in ids else len(ids)

    return count


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.to_str())["model"]
    named = model.get("unk_token")
    found: int | None = tokenizer.token_to_id(named) if named is not None else model.get("unk_id")
    return found


def _extend_backend(old: Tokenizer, new: Sequence[str], texts: Sequence[str]) -> Tokenizer:
    """Put pieces into a unigram model, or beside any other as tokens that are taken whole."""
    parts: dict[str, Any] = json.loads(old.to_str())
    model = parts["model"]
    is_inside = all(added["id"] < len(model["vocab"]) for added in parts["added_tokens"])
    if model["type"] == "Unigram" and is_inside:
        joined = "\n".join(texts)
        num_tokens = sum(len(one.ids) for one in old.encode_batch_fast(list(texts)))
        for piece in new:
            count = max(1, joined.count(piece))
            model["vocab"].append([piece, round(math.log(count / max(num_tokens, count + 1)), 6)])
        return Tokenizer.from_str(json.dumps(parts))
    extended = Tokenizer.from_str(old.to_str())
    extended.add_tokens(
        [AddedToken(piece, single_word=piece.isascii(), normalized=False) for piece in new]
    )
    return extended
