# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a corpus: read, trained or extended, and its folder beside the shards.

Called by `prepare` for text and by `row_sets` for rows. The folder loads with AutoTokenizer;
`tokenizer_files.read_pieces_of` gives its pieces to whoever has no transformers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from pyfsb import storage
from pyfsb.config import DataSpec
from pyfsb.config.corpus_sections import TokenizerKind
from pyfsb.data.extending import extend_parts
from pyfsb.data.segmenting import load_cutter
from pyfsb.data.tokenizer_files import (
    FILES,
    MODEL_FILES,
    TokenizerParts,
    bring_tokenizer,
    of_backend,
    open_tokenizer,
    read_specials,
)
from pyfsb.data.tokenizer_training import (
    BYTE_BPE_ROLES,
    UNIGRAM_ROLES,
    sentinel_names,
    train_byte_bpe,
    train_unigram,
)
from pyfsb.data.vocabulary import (
    MAX_TOKENS_ANY,
    read_vocabulary,
    train_vocabulary,
    vocabulary_digest,
    write_tokenizer,
)
from pyfsb.errors import ConfigError
from pyfsb.schema import Json
from pyfsb.tokenizers import jieba_wordpiece

EXTENSION_NAME: Final = "extension.json"
"""Beside an extended tokenizer: what was there before and what was added."""
WORDPIECE_ENDS: Final = {"bos_token": "[BOS]", "eos_token": "[EOS]"}
"""Before the sentinels of a WordPiece vocabulary, as Randeng-MegatronT5 has them."""
_LEXICON_NAME: Final = "ngram.txt"
_GENERIC_CLASS: Final = "PreTrainedTokenizerFast"
_ENDS: Final = ("</s>", "[EOS]", "[SEP]", "<|endoftext|>", "<eos>", "<|eod|>")
Texts = Callable[[], Iterator[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTokenizer:
    """A tokenizer, and what it was made from."""

    parts: TokenizerParts
    """What it is made of."""
    roles: dict[str, str]
    """Its special tokens as tokenizer_config.json has them, of what was trained here."""
    extra: tuple[str, ...] = ()
    """Further special tokens: sentinels."""
    source: Path | None = None
    """The folder it was read from."""
    num_base_pieces: int | None = None
    """Pieces that it had before it was extended; None: it was not."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """All pieces, ids in order."""
        return self.parts.pieces

    @property
    def new_pieces(self) -> tuple[str, ...]:
        """Those that were added."""
        return () if self.num_base_pieces is None else self.pieces[self.num_base_pieces :]

    @property
    def base_digest(self) -> str:
        """The digest of the pieces before; empty when nothing was added."""
        known = self.pieces[: self.num_base_pieces or 0]
        return vocabulary_digest(known) if known else ""

    @property
    def end_id(self) -> int:
        """The id that stands behind a document.

        Raises:
            ConfigError: There is no such piece.
        """
        named = [self.roles[role] for role in ("eos_token", "sep_token") if role in self.roles]
        if self.source is not None:
            special = read_specials(self.source)
            named = [special[role] for role in ("eos", "sep") if role in special]
        for token in (*named, *_ENDS):
            if token in self.pieces:
                return self.pieces.index(token)
        raise ConfigError(
            f"data.concatenate: the tokenizer has no end token (one of {', '.join(_ENDS)})"
        )


def build_tokenizer_folder(texts: Texts, data: DataSpec, folder: Path) -> list[str]:
    """Train, read or extend the tokenizer that a completed data section asks for; write its folder.

    Args:
        texts: Gives the normalised texts, anew every time; called only where they are needed.
        data: From `complete_data`.
        folder: Where to write it.

    Returns:
        The pieces, ids in order.

    Raises:
        DataError: The texts hold nothing to train on, or a file is not usable.
        ConfigError: The tokenizer does not fit what is asked.
    """
    chosen = choose_tokenizer(data, texts, texts)
    write_chosen(chosen, folder)
    return list(chosen.pieces)


def choose_tokenizer(data: DataSpec, texts: Texts, some_texts: Texts) -> ChosenTokenizer:
    """Return the tokenizer that a completed data section asks for.

    Args:
        data: From `complete_data`.
        texts: Gives all texts.
        some_texts: Gives those of a sample, for kinds whose training does not bear all.

    Raises:
        DataError: The texts hold nothing to train on, or a file is not usable.
        ConfigError: The tokenizer does not fit what is asked.
    """
    chosen = _read(data) or _train(data, texts, some_texts)
    if data.vocabulary.extend is None:
        return chosen
    # Pegasus' words are those of jieba without its model of unknown words.
    is_jieba = chosen.parts.kind == "jieba_wordpiece"
    cut = (jieba_wordpiece.load_cutter if is_jieba else load_cutter)(data.segmenter)
    extended = extend_parts(chosen.parts, some_texts(), num_new=data.vocabulary.extend, cut=cut)
    return ChosenTokenizer(
        parts=extended, roles=chosen.roles, extra=chosen.extra, source=chosen.source,
        num_base_pieces=len(chosen.pieces),
    )  # fmt: skip


def _read(data: DataSpec) -> ChosenTokenizer | None:
    if data.tokenizer:
        folder = bring_tokenizer(data.tokenizer)
        return ChosenTokenizer(parts=open_tokenizer(folder), roles={}, source=folder)
    vocabulary = data.vocabulary
    if not vocabulary.file:
        return None
    text, lowercase = storage.read_text(vocabulary.file), vocabulary.lowercase
    if vocabulary.kind is TokenizerKind.JIEBA_WORDPIECE:
        ids = jieba_wordpiece.read_vocabulary(text, source=vocabulary.file)
        pieces = tuple(sorted(ids, key=lambda piece: ids[piece]))
        return _plain("jieba_wordpiece", pieces, lowercase=lowercase)
    known = read_vocabulary(text, source=vocabulary.file)
    return _plain("wordpiece", tuple(known), lowercase=lowercase)


def _train(data: DataSpec, texts: Texts, some_texts: Texts) -> ChosenTokenizer:
    vocabulary = data.vocabulary
    size, num_sentinels = vocabulary.size, vocabulary.num_sentinels or 0
    sentinels = sentinel_names(num_sentinels)
    if vocabulary.kind is TokenizerKind.UNIGRAM:
        trained = train_unigram(some_texts(), size=size, num_sentinels=num_sentinels)
        return _of_backend(trained, UNIGRAM_ROLES, sentinels)
    if vocabulary.kind is TokenizerKind.BYTE_BPE:
        trained = train_byte_bpe(some_texts(), size=size, num_sentinels=num_sentinels)
        return _of_backend(trained, BYTE_BPE_ROLES, sentinels)
    if vocabulary.kind is TokenizerKind.JIEBA_WORDPIECE:
        cut = jieba_wordpiece.load_cutter(data.segmenter)
        pieces = train_words(some_texts(), size=size, lowercase=vocabulary.lowercase, cut=cut)
        return _plain("jieba_wordpiece", tuple(pieces), lowercase=vocabulary.lowercase)
    ends = WORDPIECE_ENDS if sentinels else {}
    extra = (*ends.values(), *sentinels)
    known = train_vocabulary(texts(), size=size - len(extra), lowercase=vocabulary.lowercase)
    parts = TokenizerParts(
        kind="wordpiece", pieces=(*known, *extra), lowercase=vocabulary.lowercase
    )
    return ChosenTokenizer(parts=parts, roles=ends, extra=extra)


def train_words(
    texts: Iterator[str], *, size: int, lowercase: bool, cut: jieba_wordpiece.Cutter
) -> list[str]:
    """Train a vocabulary of jieba's words: characters and Latin pieces first, then the words.

    Half of it at most is what words fall back to, as a WordPiece vocabulary is trained.

    Args:
        texts: Normalised documents.
        size: Pieces at most.
        lowercase: As in `VocabularySpec`.
        cut: A word segmenter without HMM.

    Raises:
        DataError: The texts hold no character at all.
    """
    kept = list(texts)
    wordpiece = train_vocabulary(kept, size=max(16, size // 2), lowercase=lowercase)
    rest = [piece for piece in wordpiece if not (piece.startswith("[") and len(piece) > 2)]
    lines = {token: line for line, token in jieba_wordpiece.RENAMED.items()}
    specials = [
        jieba_wordpiece.PAD, jieba_wordpiece.EOS, jieba_wordpiece.SENTENCE_MASK,
        jieba_wordpiece.MASK, jieba_wordpiece.UNKNOWN, jieba_wordpiece.CLASSIFIER,
        jieba_wordpiece.SEPARATOR,
    ]  # fmt: skip
    known = {*specials, *rest, *lines.values()}
    counts = jieba_wordpiece.count_words(kept, lowercase=lowercase, cut=cut)
    words = sorted(
        (word for word, count in counts.items() if count > 1 and len(word) > 1),
        key=lambda word: (-counts[word], word),
    )
    new = [word for word in words if word not in known and not any(map(str.isspace, word))]
    return [*specials, *rest, *new][:size]


def write_chosen(chosen: ChosenTokenizer, folder: Path) -> None:
    """Write the folder of a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, is_extended = chosen.parts, chosen.num_base_pieces is not None
    if chosen.source is not None and not is_extended:
        _copy(chosen, folder)
    elif parts.kind == "jieba_wordpiece":
        jieba_wordpiece.write_tokenizer(parts.pieces, folder, lowercase=parts.lowercase)
    elif parts.backend is None:
        write_tokenizer(parts.pieces, folder, lowercase=parts.lowercase, extra=chosen.extra)
        _merge_config(folder, {**_config_of(chosen.source), **chosen.roles}, keeps_class=False)
    else:
        (folder / "tokenizer.json").write_text(_pretty(parts.backend), encoding="utf-8")
        given = {**_config_of(chosen.source), **chosen.roles, "tokenizer_class": _GENERIC_CLASS}
        if chosen.extra:
            given["extra_special_tokens"] = list(chosen.extra)
        given.setdefault("model_max_length", MAX_TOKENS_ANY)
        _merge_config(folder, given, keeps_class=True)
    if is_extended:
        lexicon = chosen.source / _LEXICON_NAME if chosen.source else None
        if lexicon and lexicon.is_file():  # of old pieces, whose ids stay
            shutil.copyfile(lexicon, folder / _LEXICON_NAME)
        value = {
            "base_vocabulary_digest": chosen.base_digest,
            "num_base_pieces": chosen.num_base_pieces,
            "new_pieces": list(chosen.new_pieces),
        }
        text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
        (folder / EXTENSION_NAME).write_text(text, encoding="utf-8")


def _copy(chosen: ChosenTokenizer, folder: Path) -> None:
    """Copy a tokenizer's files; one that AutoTokenizer could not tell gets its class."""
    source = chosen.source
    assert source is not None
    for name in FILES:
        if (source / name).is_file() and name != "config.json":
            shutil.copyfile(source / name, folder / name)
    config = _config_of(source)
    if chosen.parts.backend is None and "tokenizer_class" not in config:
        own = "JiebaPegasusTokenizer" if chosen.parts.kind == "jieba_wordpiece" else "BertTokenizer"
        config = {"do_lower_case": chosen.parts.lowercase, **config, "tokenizer_class": own}
    elif chosen.parts.backend is not None and "tokenizer_class" not in config:
        config["tokenizer_class"] = _GENERIC_CLASS
        if not any((source / name).is_file() for name in MODEL_FILES):
            (folder / "tokenizer.json").write_text(_pretty(chosen.parts.backend), encoding="utf-8")
    _merge_config(folder, config, keeps_class=True)
    model_type = _json(source / "config.json").get("model_type")
    if model_type and any((source / name).is_file() for name in MODEL_FILES):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}) + "\n")


def _merge_config(folder: Path, given: Json, *, keeps_class: bool) -> None:
    """Write tokenizer_config.json: what is there, and over it what is given; never code to run."""
    path = folder / "tokenizer_config.json"
    dropped = {"auto_map", "tokenizer_file", "name_or_path", "vocab_file"}
    if not keeps_class:
        dropped |= {"tokenizer_class", "do_lower_case"}
    merged = {**_json(path), **{key: value for key, value in given.items() if key not in dropped}}
    merged.pop("auto_map", None)
    path.write_text(json.dumps(merged, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _config_of(source: Path | None) -> Json:
    if source is None:
        return {}
    return _json(source / "special_tokens_map.json") | _json(source / "tokenizer_config.json")


def _json(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _plain(kind: str, pieces: tuple[str, ...], *, lowercase: bool) -> ChosenTokenizer:
    parts = TokenizerParts(kind=kind, pieces=pieces, lowercase=lowercase)
    return ChosenTokenizer(parts=parts, roles={})


def _of_backend(
    tokenizer: Tokenizer, roles: dict[str, str], sentinels: list[str]
) -> ChosenTokenizer:
    parts = of_backend(tokenizer, source="the trained tokenizer")
    return ChosenTokenizer(parts=parts, roles=dict(roles), extra=tuple(sentinels))


def _pretty(backend: str) -> str:
    return json.dumps(json.loads(backend), ensure_ascii=False, indent=2) + "\n"
