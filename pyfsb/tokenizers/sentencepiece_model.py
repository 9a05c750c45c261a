# SPDX-License-Identifier: Apache-2.0
"""SentencePiece `.model` files, read without the sentencepiece package, as `tokenizers` objects.

Called by `pyfsb.tokenizers.choosing`, `vocabulary_cut` and the data stage. Neither sentencepiece
nor protobuf is needed: of the file's fields these few are read. Never imports transformers.

Source: sentencepiece_model.proto of google/sentencepiece 0.2 (field numbers and defaults); the
tests compare ids with the sentencepiece library. Where a unigram model has two cuts of one score
(99|9 and 9|99) the library, which adds in single precision, may take the other one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from pyfsb.errors import DataError

SPACE: Final = "▁"
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_KINDS: Final[dict[int, Literal["unigram", "bpe"]]] = {1: "unigram", 2: "bpe"}


class PieceKind(IntEnum):
    """What a piece of a SentencePiece model is for."""

    NORMAL = 1
    """Text."""
    UNKNOWN = 2
    """Stands for what no piece covers."""
    CONTROL = 3
    """Never found in a text, such as the end of a sequence."""
    USER_DEFINED = 4
    """Taken whole wherever it occurs."""
    UNUSED = 5
    """Neither found nor made."""
    BYTE = 6
    """A byte of a character that no piece covers."""


@dataclass(frozen=True, slots=True)
class ScoredPiece:
    """One piece; its id is its place in the model."""

    text: str
    """The piece, `▁` for a space."""
    score: float
    """Log probability (unigram), or minus the rank of its merge (BPE)."""
    kind: PieceKind = PieceKind.NORMAL
    """What it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceModel:
    """What a `.model` file says."""

    pieces: tuple[ScoredPiece, ...]
    """In the order of their ids."""
    kind: Literal["unigram", "bpe"]
    """How a text is cut."""
    unknown_id: int
    """Id of the unknown piece."""
    charsmap: bytes
    """The compiled normalisation; empty for none."""
    adds_space: bool
    """A space is put in front of a text."""
    removes_extra_spaces: bool
    """Spaces at both ends are dropped, several become one."""

    @property
    def has_byte_fallback(self) -> bool:
        """Characters without a piece become bytes."""
        return any(piece.kind is PieceKind.BYTE for piece in self.pieces)

    def find(self, text: str) -> int | None:
        """Return the id of a piece; None if there is none."""
        return next((i for i, piece in enumerate(self.pieces) if piece.text == text), None)


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a `.model` file.

    Raises:
        DataError: It is not one, or neither unigram nor BPE.
    """
    try:
        fields = list(_fields(path.read_bytes()))
        pieces = tuple(_piece(_bytes(value)) for number, value in fields if number == 1)
        trainer = dict(_fields(_last(fields, 2)))
        normalizer = dict(_fields(_last(fields, 3)))
        kind = _KINDS[int(trainer.get(3, 1))]
    except (IndexError, ValueError, TypeError, KeyError, struct.error, UnicodeDecodeError) as exc:
        raise DataError(
            f"{path}: not a SentencePiece model of kind unigram or bpe ({exc!r})"
        ) from None
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror}") from None
    unknown_id = int(trainer.get(40, 0))
    if not 0 <= unknown_id < len(pieces):
        raise DataError(f"{path}: {len(pieces)} pieces, but the unknown one is number {unknown_id}")
    return SentencePieceModel(
        pieces=pieces,
        kind=kind,
        unknown_id=unknown_id,
        charsmap=_bytes(normalizer.get(2, b"")),
        adds_space=bool(normalizer.get(3, 1)),
        removes_extra_spaces=bool(normalizer.get(4, 1)),
    )


def build_tokenizer(model: SentencePieceModel, *, specials: Iterable[str] = ()) -> Tokenizer:
    """Return a tokenizer that gives the ids of the SentencePiece library.

    It puts no special token around a text; see `pyfsb.tokenizers.bart_sentencepiece`. Control and
    user-defined pieces are found whole in a text, and a space is put in front of what follows.

    Args:
        model: From `read_sentencepiece`.
        specials: Tokens that decoding may skip; such as are no piece get the next ids.
    """
    tokenizer = Tokenizer(_unigram(model) if model.kind == "unigram" else _bpe(model))
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.removes_extra_spaces:
        steps += [
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if model.adds_space else "never"
    crosses_spaces = any(SPACE in piece.text.lstrip(SPACE) for piece in model.pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE, prepend_scheme=scheme, split=not crosses_spaces
    )
    last = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=not crosses_spaces)
    tokenizer.decoder = (
        decoders.Sequence([decoders.ByteFallback(), last]) if model.has_byte_fallback else last
    )
    own = [piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in own])
    special = [piece.text for piece in model.pieces if piece.kind is PieceKind.CONTROL]
    named = list(dict.fromkeys([*special, model.pieces[model.unknown_id].text, *specials]))
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in named])
    return tokenizer


def _unigram(model: SentencePieceModel) -> models.Unigram:
    return models.Unigram(
        [(piece.text, piece.score) for piece in model.pieces],
        unk_id=model.unknown_id,
        byte_fallback=model.has_byte_fallback,
    )


def _bpe(model: SentencePieceModel) -> models.BPE:
    """Merges are all splits of a piece into two others, best scores first."""
    ids = {
        piece.text: number
        for number, piece in enumerate(model.pieces)
        if piece.kind in (PieceKind.NORMAL, PieceKind.USER_DEFINED)
    }
    ranked: list[tuple[float, int, int, str, str]] = []
    for text, number in ids.items():
        score = model.pieces[number].score
        for place in range(1, len(text)):
            left, right = text[:place], text[place:]
            if left in ids and right in ids:
                ranked.append((-score, ids[left], ids[right], left, right))
    return models.BPE(
        vocab={piece.text: number for number, piece in enumerate(model.pieces)},
        merges=[(left, right) for *_, left, right in sorted(ranked)],
        unk_token=model.pieces[model.unknown_id].text,
        fuse_unk=True,
        byte_fallback=model.has_byte_fallback,
    )


def _piece(data: bytes) -> ScoredPiece:
    fields = dict(_fields(data))
    score = struct.unpack("<f", _bytes(fields.get(2, b"\0\0\0\0")))[0]
    return ScoredPiece(_bytes(fields[1]).decode("utf-8"), score, PieceKind(int(fields.get(3, 1))))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values of a protobuf message; fixed-width ones as their bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, form = key >> 3, key & 7
        if form == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if form == _BYTES:
            length, position = _varint(data, position)
        elif form in (_FIXED_32, _FIXED_64):
            length = 4 if form == _FIXED_32 else 8
        else:
            raise ValueError(f"wire type {form}")
        if position + length > len(data):
            raise ValueError("cut short")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number where bytes belong")
    return value


def _last(fields: list[tuple[int, int | bytes]], number: int) -> bytes:
    found = [value for key, value in fields if key == number]
    return _bytes(found[-1]) if found else b""
