# SPDX-License-Identifier: Apache-2.0
"""WordPiece vocabularies: read from a file or trained on a corpus, and written as a tokenizer.

The folder `write_tokenizer` makes is what transformers' `AutoTokenizer.from_pretrained` loads as a
BertTokenizer. Called by `corpus_tokenizer`; never imports transformers. For other kinds see
`tokenizer_training`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from pyfsb.errors import DataError
from pyfsb.schema import Json, digest

SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_UNKNOWN: Final = SPECIAL_TOKENS[1]
MAX_TOKENS_ANY: Final = 1_000_000
"""`model_max_length` of a tokenizer whose model sets the limit."""
_ALPHABET_SHARE: Final = 0.875
"""Share of a trained vocabulary that single characters may take; the rest is for Latin pieces."""
_WORD = re.compile(
    r"[^\s!-/:-@\[-`{-~\u2010-\u205e\u3001-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\U00020000-\U0002fa1f]{2,30}"
)
"""What may hold pieces of more than one character: neither hanzi nor punctuation."""
_ANY = re.compile(r"\S")


def read_vocabulary(text: str, *, source: str) -> list[str]:
    """Return the pieces of a vocab.txt, one a line, the line number being the id.

    Raises:
        DataError: A special token is missing, or a piece stands twice.
    """
    pieces = text.removesuffix("\n").split("\n")
    pieces = [piece.removesuffix("\r") for piece in pieces]
    missing = [token for token in SPECIAL_TOKENS if token not in pieces]
    if missing:
        raise DataError(f"{source}: not a WordPiece vocabulary: {', '.join(missing)} not in it")
    repeated = [piece for piece, count in Counter(pieces).items() if count > 1]
    if repeated:
        raise DataError(f"{source}: {repeated[0]!r} stands on more than one line")
    return pieces


def train_vocabulary(texts: Iterable[str], *, size: int, lowercase: bool) -> list[str]:
    """Train a vocabulary: special tokens, the commonest characters, then pieces of Latin words.

    The same texts give the same vocabulary: `tokenizers` breaks ties between pairs by ids that it
    gives out in hash order, so every piece of one character is given to it beforehand.

    Args:
        texts: Normalised documents.
        size: Pieces at most.
        lowercase: As in `VocabularySpec`.

    Raises:
        DataError: The texts hold no character at all.
    """
    raw_characters: Counter[str] = Counter()
    raw_words: Counter[str] = Counter()
    for text in texts:
        raw_characters.update(text)
        raw_words.update(_WORD.findall(text))
    normalizer = _normalizer(lowercase)
    characters = _normalised(raw_characters, normalizer)
    words = _normalised(raw_words, normalizer, pattern=_WORD)
    alphabet = _commonest(characters, int(size * _ALPHABET_SHARE) - len(SPECIAL_TOKENS))
    if not alphabet:
        raise DataError("the corpus holds no text to train a vocabulary on")
    known = set(alphabet)
    continuing = {character for word in words for character in word[1:]} & known
    singles = [*SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in sorted(continuing))]
    if len(singles) >= size:
        return singles[:size]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=singles,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer = Tokenizer(models.WordPiece(unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(_repeated(words, known), trainer)
    return [piece for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]


def build_tokenizer(
    pieces: Sequence[str], *, lowercase: bool, extra: Sequence[str] = ()
) -> Tokenizer:
    """Return the BERT tokenizer of a vocabulary (adds [CLS] and [SEP] unless told not to).

    Args:
        pieces: The vocabulary.
        lowercase: As in `VocabularySpec`.
        extra: Pieces that are special tokens beside BERT's.
    """
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token=_UNKNOWN, max_input_chars_per_word=100)
    )
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([*SPECIAL_TOKENS, *extra])
    cls_id, sep_id = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls_id), ("[SEP]", sep_id)],
    )
    return tokenizer


def write_tokenizer(
    pieces: Sequence[str], folder: Path, *, lowercase: bool, extra: Sequence[str] = ()
) -> None:
    """Write vocab.txt, tokenizer.json and tokenizer_config.json; arguments as build_tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8", newline="\n")
    tokenizer = build_tokenizer(pieces, lowercase=lowercase, extra=extra)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: Json = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lowercase,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        "model_max_length": MAX_TOKENS_ANY,
        **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS},
    }
    if extra:
        config["extra_special_tokens"] = list(extra)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def vocabulary_digest(pieces: Sequence[str]) -> str:
    """Return the sha256 by which shards and checkpoints know whether they fit."""
    return digest(list(pieces))


def _normalizer(lowercase: bool) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )


def _normalised(
    counts: Counter[str], normalizer: normalizers.Normalizer, pattern: re.Pattern[str] = _ANY
) -> Counter[str]:
    """Return the counts of what the keys become (normalising each key once is what is fast)."""
    result: Counter[str] = Counter()
    for key, count in counts.items():
        for piece in pattern.findall(normalizer.normalize_str(key)):
            result[piece] += count
    return result


def _commonest(characters: Counter[str], limit: int) -> list[str]:
    """Return the commonest characters in code-point order; ties go to the lower code point."""
    ranked = sorted(characters.items(), key=lambda item: (-item[1], item[0]))
    return sorted([character for character, _ in ranked if not character.isspace()][:limit])


def _repeated(words: Counter[str], known: set[str]) -> Iterable[str]:
    """Yield each word as often as it occurs, a line of words at a time."""
    for word, count in sorted(words.items()):
        if known.issuperset(word):
            for start in range(0, count, 1000):
                yield " ".join([word] * min(1000, count - start))
