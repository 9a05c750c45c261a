# SPDX-License-Identifier: Apache-2.0
"""jieba's words, and WordPiece for those that the vocabulary lacks, as Randeng-Pegasus has it.

A word of jieba (without HMM) that stands in the vocabulary is one piece; any other falls to BERT's
basic tokens and word pieces, so a Chinese word falls to its characters. Called by the data stage,
and by `pyfsb.tokenizers.pegasus`, which makes a class of `transformers` of it. Never imports
transformers.

Source: behaviour of PegasusTokenizer in IDEA-CCNL/Fengshenbang-LM at c8fb7b8 under transformers
4.29, given by the reference cases `tokenizer_pegasus`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyfsb.errors import ConfigError, DataError

Cutter = Callable[[str], Iterable[str]]
PAD, EOS, UNKNOWN, SENTENCE_MASK, MASK = "<pad>", "</s>", "<unk>", "<mask_1>", "<mask_2>"
SEPARATOR, CLASSIFIER = "[SEP]", "[CLS]"
SPECIAL_TOKENS: Final = (EOS, UNKNOWN, SEPARATOR, PAD, CLASSIFIER, MASK, SENTENCE_MASK)
RENAMED: Final = {
    "[unused1]": EOS,
    "[PAD]": PAD,
    "[UNK]": UNKNOWN,
    "[unused3]": MASK,
    "[unused2]": SENTENCE_MASK,
}
"""Lines of the published vocab.txt and the tokens that they stand for."""
_MAX_WORD_CHARACTERS = 100
_MAX_CACHED_WORDS = 500_000
_HANZI: Final = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_ENGLISH_ENDINGS = re.compile(r"' (re|m|s|t|ve|d|ll) ")
_NO_SPACE_AFTER = re.compile(
    "([＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､\u3000、〃〈〉《》「」『』【】〔〕〖〗"
    "〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏﹑﹔·！？｡。+\\-/={(<\\[]) "
)
_SPLIT_DECIMAL = re.compile(r"(\d\.) (\d)")


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a text."""

    text: str
    """As in the vocabulary; the unknown token where no piece fits."""
    start: int
    """Place of its first character in the text."""
    is_word_start: bool
    """True for the first piece of a word of jieba."""


def read_vocabulary(text: str, *, source: str) -> dict[str, int]:
    """Return the ids of the pieces of a published vocab.txt, special tokens under their own names.

    Args:
        text: One piece a line; the id is the number of the line, from 0.
        source: Where it is from, for the message.

    Raises:
        DataError: A line that a special token stands on is missing.
    """
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    known = set(lines)
    for line, token in RENAMED.items():
        if line not in known and token not in known:
            raise DataError(
                f"{source}: no line {line} (it stands for {token}); a Pegasus vocab.txt has "
                f"{', '.join(RENAMED)}"
            )
    taken = {token for line, token in RENAMED.items() if line in known}
    return {
        RENAMED.get(line, line): number for number, line in enumerate(lines) if line not in taken
    }


def write_tokenizer(pieces: Iterable[str], folder: Path, *, lowercase: bool) -> None:
    """Write vocab.txt and tokenizer_config.json as AutoTokenizer loads them once we registered.

    Args:
        pieces: In the order of their ids; special tokens under their own names or published ones.
        folder: Made if need be.
        lowercase: As in `JiebaWordPiece`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = {token: line for line, token in RENAMED.items()}
    text = "".join(f"{lines.get(piece, piece)}\n" for piece in pieces)
    read_vocabulary(text, source=str(folder / "vocab.txt"))
    (folder / "vocab.txt").write_text(text, encoding="utf-8", newline="\n")
    config = {
        "tokenizer_class": "JiebaPegasusTokenizer",
        "do_lower_case": lowercase,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "mask_token": MASK,
        "sep_token": SEPARATOR,
        "cls_token": CLASSIFIER,
        "extra_special_tokens": [SENTENCE_MASK],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_cutter(segmenter: str) -> Cutter:
    """Return a function that cuts a text into words without HMM; the words joined are the text.

    Args:
        segmenter: `jieba`, the reference, or `rjieba`, the same words fifteen times as fast but
            where two cuts have one score (see `pyfsb.data.segmenting`).

    Raises:
        ConfigError: It is neither, or not installed.
    """
    try:
        if segmenter == "rjieba":
            import rjieba

            return lambda text: rjieba.cut(text, False)
        if segmenter == "jieba":
            import jieba

            jieba.setLogLevel(60)
            jieba.initialize()
            return lambda text: jieba.lcut(text, HMM=False)
    except ImportError:
        raise ConfigError(f"segmenter {segmenter!r}: package is not installed") from None
    raise ConfigError(f"segmenter {segmenter!r}: expected jieba or rjieba")


class JiebaWordPiece:
    """Splits texts into pieces of a vocabulary."""

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        *,
        lowercase: bool = True,
        cut: Cutter | None = None,
        strips_accents: bool | None = None,
        splits_hanzi: bool = True,
    ) -> None:
        """Build it.

        Args:
            vocabulary: Ids of the pieces, from `read_vocabulary`.
            lowercase: Lower-case texts.
            cut: From `load_cutter`. None takes jieba.
            strips_accents: Of words that the vocabulary lacks. None: as `lowercase`.
            splits_hanzi: Words that the vocabulary lacks fall to their hanzi.

        Raises:
            DataError: The vocabulary has no unknown token.
        """
        if UNKNOWN not in vocabulary:
            raise DataError(f"the vocabulary has no {UNKNOWN}; see read_vocabulary")
        self.vocabulary = vocabulary
        self.lowercase = lowercase
        self._strips_accents = lowercase if strips_accents is None else strips_accents
        self._splits_hanzi = splits_hanzi
        self._cut = cut or load_cutter("jieba")
        self._words: dict[str, tuple[tuple[str, int], ...]] = {}

    def tokenize(self, text: str, *, specials: Collection[str] = ()) -> list[str]:
        """Return the pieces of a text.

        Args:
            text: Any.
            specials: Tokens that are taken whole where they occur, in their own case. Without
                them `</s>` in a text is text like any other.
        """
        return [piece.text for piece in self.split(text, specials=specials)]

    def encode(self, text: str, *, specials: Collection[str] = ()) -> list[int]:
        """Return the ids of the pieces of a text; nothing is put in front or behind."""
        ids, unknown = self.vocabulary, self.vocabulary[UNKNOWN]
        return [ids.get(piece.text, unknown) for piece in self.split(text, specials=specials)]

    def split(self, text: str, *, specials: Collection[str] = ()) -> Iterator[Piece]:
        """Yield the pieces of a text with their places; arguments as of `tokenize`."""
        for part, start, is_special in _parts(text, specials):
            if is_special:
                yield Piece(part, start, True)
            else:
                yield from self._split_part(part, start)

    def _split_part(self, text: str, start: int) -> Iterator[Piece]:
        places: Iterable[int] = range(len(text) + 1)
        if self.lowercase:
            text, places = _lower(text)
        places, position = list(places), 0
        for word in self._cut(text):
            for number, (piece, offset) in enumerate(self._pieces(word)):
                yield Piece(piece, start + places[position + offset], number == 0)
            position += len(word)

    def _pieces(self, word: str) -> tuple[tuple[str, int], ...]:
        """Return the pieces of a word of jieba with their places in it."""
        if word in self.vocabulary:
            return ((word, 0),)
        pieces = self._words.get(word)
        if pieces is None:
            tokens = basic_tokens(
                word,
                lowercase=self.lowercase,
                strips_accents=self._strips_accents,
                splits_hanzi=self._splits_hanzi,
            )
            pieces = tuple(piece for token in tokens for piece in self._word_pieces(token))
            if len(self._words) < _MAX_CACHED_WORDS:
                self._words[word] = pieces
        return pieces

    def _word_pieces(self, token: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Take the longest piece that fits, again and again; all or nothing."""
        text = "".join([character for character, _ in token])
        unknown = [(UNKNOWN, token[0][1])]
        if len(text) > _MAX_WORD_CHARACTERS:
            return unknown
        found: list[tuple[str, int]] = []
        start = 0
        while start < len(text):
            prefix = "##" if start else ""
            for stop in range(len(text), start, -1):
                if prefix + text[start:stop] in self.vocabulary:
                    break
            else:
                return unknown
            found.append((prefix + text[start:stop], token[start][1]))
            start = stop
        return found


def basic_tokens(
    text: str, *, lowercase: bool, strips_accents: bool, splits_hanzi: bool
) -> list[list[tuple[str, int]]]:
    """Split a text as BERT does before WordPiece: at spaces, around hanzi and punctuation.

    Args:
        text: Any.
        lowercase: Lower-case it.
        strips_accents: Take marks off letters.
        splits_hanzi: Each one is a token.

    Returns:
        Tokens, each a list of characters with the places in the text that they are from.
    """
    tokens: list[list[tuple[str, int]]] = []
    is_open = False
    for place, raw in enumerate(text):
        if is_dropped(raw):
            continue
        if raw.isspace():
            is_open = False
            continue
        is_hanzi_here = splits_hanzi and is_hanzi(raw)
        if is_hanzi_here:
            is_open = False
        cased = raw.lower() if lowercase else raw
        for character in _strip_accents(cased) if strips_accents else cased:
            if is_punctuation(character):
                tokens.append([(character, place)])
                is_open = False
            elif is_open:
                tokens[-1].append((character, place))
            else:
                tokens.append([(character, place)])
                is_open = True
        is_open = is_open and not is_hanzi_here
    return tokens


def join_pieces(pieces: Iterable[str]) -> str:
    """Return the text of pieces as the original writes it.

    Spaces next to hanzi are lost; one is put after Latin punctuation. Source: see the module.
    """
    text = ""
    for piece in pieces:
        if piece.startswith("##"):
            text += piece[2:]
        elif len(piece) == 1 and is_hanzi(piece):
            text += piece
        elif len(piece) == 1 and is_punctuation(piece):
            text += f"{piece} "
        elif text and is_hanzi(text[-1]):
            text += piece
        else:
            text += f" {piece}"
    text = re.sub(" +", " ", text)
    text = _ENGLISH_ENDINGS.sub(r"'\1 ", text)
    text = _NO_SPACE_AFTER.sub(r"\1", text)
    return _SPLIT_DECIMAL.sub(r"\1\2", text).strip()


def count_words(texts: Iterable[str], *, lowercase: bool, cut: Cutter) -> Counter[str]:
    """Count the words of texts, to choose a vocabulary from."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(cut(_lower(text)[0] if lowercase else text))
    return counts


def is_hanzi(character: str) -> bool:
    """Tell whether BERT sets a character apart as a hanzi."""
    point = ord(character)
    return point >= 0x3400 and any(low <= point <= high for low, high in _HANZI)


def is_punctuation(character: str) -> bool:
    """Tell whether BERT takes a character for punctuation: Unicode's, and all ASCII signs."""
    if "!" <= character <= "~" and not character.isalnum():
        return True
    return unicodedata.category(character).startswith("P")


def is_dropped(character: str) -> bool:
    """Tell whether BERT leaves a character out: controls, and what stands for a broken byte."""
    if character in "\t\n\r":
        return False
    return character == "\ufffd" or unicodedata.category(character).startswith("C")


def _strip_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return "".join([part for part in decomposed if unicodedata.category(part) != "Mn"])


def _lower(text: str) -> tuple[str, list[int]]:
    """Lower-case each character on its own; returns also the place that each one is from."""
    lowered = [character.lower() for character in text]
    if len(joined := "".join(lowered)) == len(text):
        return joined, list(range(len(text) + 1))
    places = [place for place, part in enumerate(lowered) for _ in part]
    return joined, [*places, len(text)]


def _parts(text: str, specials: Collection[str]) -> Iterator[tuple[str, int, bool]]:
    """Yield special tokens and the text between, with places; spaces beside them are lost."""
    if not specials:
        yield text, 0, False
        return
    longest_first = sorted(specials, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    matches = list(pattern.finditer(text))
    starts = [0, *(match.end() for match in matches)]
    stops = [*(match.start() for match in matches), len(text)]
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        part = text[start:stop]
        if number:
            part = part.lstrip()
        place = stop - len(part)
        if number < len(matches):
            part = part.rstrip()
        if part:
            yield part, place, False
        if number < len(matches):
            yield matches[number].group(), stop, True
