# SPDX-License-Identifier: Apache-2.0
"""Tokenizer folders of every kind, read without transformers.

`read_pieces_of` is what shards, models and objectives agree on: the pieces in the order of their
ids. A folder may hold tokenizer.json, a vocab.txt (WordPiece, or Pegasus' words), vocab.json with
merges.txt (byte-BPE), or a SentencePiece file. Called by the data stage and by training; never runs
code from a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from pyfsb import storage
from pyfsb.data.vocabulary import SPECIAL_TOKENS, build_tokenizer, read_vocabulary
from pyfsb.errors import ConfigError, DataError
from pyfsb.records import MODEL_FOLDER
from pyfsb.storage.workspace import cache_folder
from pyfsb.tokenizers import jieba_wordpiece
from pyfsb.tokenizers.sentencepiece_model import build_tokenizer as build_sentencepiece
from pyfsb.tokenizers.sentencepiece_model import read_sentencepiece

MODEL_FILES: Final = ("spiece.model", "spm.model", "tokenizer.model", "sentencepiece.bpe.model")
FILES: Final = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", *MODEL_FILES,
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "ngram.txt",
    "config.json",
)  # fmt: skip
"""What belongs to a tokenizer; of config.json only the type of the model counts."""
ROLES: Final = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
_JIEBA_CLASS: Final = "JiebaPegasusTokenizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerParts:
    """What a tokenizer is made of; plain data, so that worker processes can have it."""

    kind: str
    """wordpiece, jieba_wordpiece, or what the model of its `tokenizers` JSON is called."""
    pieces: tuple[str, ...]
    """All of them, ids in order."""
    lowercase: bool = False
    """Of the WordPiece kinds."""
    backend: str | None = None
    """JSON of `tokenizers`; None for the two WordPiece kinds, which have faster code."""


def bring_tokenizer(uri: str) -> Path:
    """Return a local folder with the files of a tokenizer.

    Args:
        uri: A folder, s3:// prefix, or hf://ORG/NAME[@REVISION]; of a run's training folder the
            model in it is taken.

    Raises:
        DataError: There is none.
        ConfigError: The hub is another one, or cannot be asked.
    """
    if storage.is_hub(uri):
        return _bring_from_hub(uri)
    if not storage.is_s3(uri):
        folder = Path(uri)
        folder = folder / MODEL_FOLDER if (folder / MODEL_FOLDER).is_dir() else folder
        if not folder.is_dir():
            raise DataError(f"data.tokenizer = {uri!r}: no such folder")
        return folder
    for prefix in (storage.join(uri, MODEL_FOLDER), uri):
        names = {file.path for file in storage.list_files(prefix)} & set(FILES)
        if names - {"config.json"}:
            target = cache_folder() / "tokenizers" / prefix.removeprefix("s3://")
            for name in names:
                storage.download(storage.join(prefix, name), target / name)
            return target
    raise DataError(f"data.tokenizer = {uri!r}: no file of a tokenizer lies there")


def _bring_from_hub(uri: str) -> Path:
    if not uri.startswith("hf://"):
        raise ConfigError(
            f"data.tokenizer = {uri!r}: only hf:// is fetched; run `fsb models fetch {uri}` and "
            "give the folder"
        )
    name, _, revision = uri.removeprefix("hf://").rstrip("/").partition("@")
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=list(FILES))
    except Exception as exc:  # the classes of the hub's errors change with its versions
        raise ConfigError(
            f"data.tokenizer = {uri!r} is in no local cache and cannot be fetched "
            f"({type(exc).__name__}); give a folder with its tokenizer.json or vocab.txt"
        ) from None
    return Path(found)


def read_pieces_of(folder: Path) -> list[str]:
    """Return the pieces of a tokenizer folder, ids in order.

    Raises:
        DataError: There is no tokenizer, or it is broken.
    """
    return list(open_tokenizer(folder).pieces)


def read_specials(folder: Path) -> dict[str, str]:
    """Return the special tokens that a folder names, by role: pad, unk, bos, eos, cls, sep, mask.

    Raises:
        DataError: A file is not JSON.
    """
    named = _read_json(folder / "special_tokens_map.json")
    named |= _read_json(folder / "tokenizer_config.json")
    found: dict[str, str] = {}
    for role in ROLES:
        value = named.get(f"{role}_token")
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[role] = value
    return found


def open_tokenizer(folder: Path) -> TokenizerParts:
    """Read the tokenizer of a folder.

    Raises:
        DataError: There is none, or it is broken.
    """
    config = _read_json(folder / "tokenizer_config.json")
    lowercase = bool(config.get("do_lower_case", True))
    vocabulary = folder / "vocab.txt"
    if _is_jieba(folder, config) and vocabulary.is_file():
        ids = jieba_wordpiece.read_vocabulary(_read(vocabulary), source=str(vocabulary))
        return TokenizerParts(
            kind="jieba_wordpiece", pieces=_in_order(ids, folder), lowercase=lowercase
        )
    if (folder / "tokenizer.json").is_file():
        return _open_json(folder / "tokenizer.json")
    if vocabulary.is_file():
        pieces = read_vocabulary(_read(vocabulary), source=str(vocabulary))
        return TokenizerParts(kind="wordpiece", pieces=tuple(pieces), lowercase=lowercase)
    return of_backend(_build_backend(folder), source=str(folder))


def of_backend(tokenizer: Tokenizer, *, source: str) -> TokenizerParts:
    """Take a `tokenizers` object apart; a BERT tokenizer becomes kind wordpiece.

    Raises:
        DataError: Two pieces have one id.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True)
    pieces = _in_order(ids, source)
    text = tokenizer.to_str()
    plain = _as_wordpiece(json.loads(text), pieces)
    if plain is not None:
        return TokenizerParts(kind="wordpiece", pieces=pieces, lowercase=plain)
    kind = str(json.loads(text)["model"]["type"]).lower()
    return TokenizerParts(kind=kind, pieces=pieces, backend=text)


def _open_json(path: Path) -> TokenizerParts:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as exc:  # `tokenizers` raises plain Exception
        raise DataError(f"{path}: not a tokenizer.json: {exc}") from None
    return of_backend(tokenizer, source=str(path))


def _build_backend(folder: Path) -> Tokenizer:
    """Build the tokenizer of a folder without tokenizer.json and vocab.txt."""
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if vocabulary.is_file() and merges.is_file():
        tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        known = tokenizer.get_vocab()
        special = [token for token in read_specials(folder).values() if token in known]
        tokenizer.add_special_tokens(list(dict.fromkeys(["<|endoftext|>", *special])))
        return tokenizer
    for name in MODEL_FILES:
        if (folder / name).is_file():
            return build_sentencepiece(read_sentencepiece(folder / name))
    raise DataError(
        f"{folder}: no tokenizer; expected tokenizer.json, vocab.txt, vocab.json with merges.txt, "
        f"or one of {', '.join(MODEL_FILES)}"
    )


def _as_wordpiece(parts: Mapping[str, Any], pieces: Sequence[str]) -> bool | None:
    """Return whether a BERT tokenizer lower-cases; None if it is not just that."""
    if parts["model"].get("type") != "WordPiece" or set(SPECIAL_TOKENS) - set(pieces):
        return None
    is_plain = all(added["special"] for added in parts["added_tokens"])
    lowercase = bool((parts["normalizer"] or {}).get("lowercase"))
    ours = json.loads(build_tokenizer(pieces, lowercase=lowercase).to_str())
    same = all(parts[key] == ours[key] for key in ("normalizer", "pre_tokenizer"))
    rules = ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word")
    same = same and all(parts["model"][rule] == ours["model"][rule] for rule in rules)
    return lowercase if same and is_plain else None


def _in_order(ids: Mapping[str, int], source: object) -> tuple[str, ...]:
    """Return pieces by their ids; an id without a piece gets a name that no text has."""
    if len(set(ids.values())) != len(ids):
        raise DataError(f"{source}: two pieces have one id")
    pieces = [f"[unused-id-{number}]" for number in range(max(ids.values()) + 1)]
    for piece, number in ids.items():
        pieces[number] = piece
    return tuple(pieces)


def _is_jieba(folder: Path, config: Mapping[str, Any]) -> bool:
    named = str(config.get("tokenizer_class"))
    if named == _JIEBA_CLASS:
        return True
    has_json = (folder / "tokenizer.json").is_file()
    model_type = _read_json(folder / "config.json").get("model_type")
    return not has_json and (model_type == "pegasus" or "Pegasus" in named)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{path}: cannot be read: {exc}") from None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except ValueError as exc:
        raise DataError(f"{path} is not JSON: {exc}") from None
    return value if isinstance(value, dict) else {}
