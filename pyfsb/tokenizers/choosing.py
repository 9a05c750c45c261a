# SPDX-License-Identifier: Apache-2.0
"""Which tokenizer a model folder has, told by its files rather than by what it says of itself.

Published folders of the family name classes that are wrong for them or that are gone: DeBERTa-v2
with a vocab.txt is BERT's, a BART with spiece.model is not T5's. Called by `pyfsb.models.loading`
and, through `registration`, by AutoTokenizer. Never runs code from a folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from pyfsb.errors import CheckpointError, DataError
from pyfsb.tokenizers.bart_sentencepiece import (
    BartSentencePieceTokenizer,
    DebertaSentencePieceTokenizer,
    LlamaSentencePieceTokenizer,
    SentencePieceTokenizer,
    T5SentencePieceTokenizer,
)
from pyfsb.tokenizers.ngram_lexicon import NGRAM_FILE
from pyfsb.tokenizers.ngram_tokenizer import ZenTokenizer
from pyfsb.tokenizers.pegasus import JiebaPegasusTokenizer

MODEL_FILES: Final = ("spiece.model", "spm.model", "tokenizer.model", "sentencepiece.bpe.model")
_SENTENCEPIECE: Final[dict[str, type[SentencePieceTokenizer]]] = {
    "bart": BartSentencePieceTokenizer,
    "t5": T5SentencePieceTokenizer,
    "mt5": T5SentencePieceTokenizer,
    "deberta-v2": DebertaSentencePieceTokenizer,
    "llama": LlamaSentencePieceTokenizer,
    "transfo_xl_denoise": SentencePieceTokenizer,
    "transfo-xl-denoise": SentencePieceTokenizer,
}
_ZEN_TYPES: Final = ("zen1", "zen2")
_MEGATRON_T5_TYPES: Final = ("megatron_t5", "megatron-t5")
_MEGATRON_T5_EXTRA: Final = ("[BOS]", "[EOS]", *(f"<extra_id_{number}>" for number in range(118)))
"""Source: fengshen/models/megatron_t5/tokenization_megatron_t5.py at c8fb7b8."""
_OWN_CLASSES: Final[dict[str, Any]] = {
    "JiebaPegasusTokenizer": JiebaPegasusTokenizer,
    "SentencePieceTokenizer": SentencePieceTokenizer,
    "ZenTokenizer": ZenTokenizer,
    **{cls.__name__: cls for cls in _SENTENCEPIECE.values()},
}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Args:
        folder: Published, or written by us; local.

    Raises:
        CheckpointError: There is none, it is broken, or it needs code of its own.
    """
    try:
        chosen = choose_class(folder)
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        if chosen is None:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **options)
            return tokenizer
        if issubclass(chosen, SentencePieceTokenizer):
            chosen = _named_file(chosen, folder)
        if chosen is BertTokenizer and _read(folder, "config.json").get("model_type") in (
            _MEGATRON_T5_TYPES
        ):
            options |= {
                "bos_token": "[BOS]",
                "eos_token": "[EOS]",
                "extra_special_tokens": list(_MEGATRON_T5_EXTRA),
            }
        tokenizer = chosen.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, TypeError, DataError) as exc:
        reason = str(exc) if isinstance(exc, OSError | ValueError) else repr(exc)
        raise CheckpointError(f"{folder}: cannot load the tokenizer: {reason}") from None
    return tokenizer


def choose_class(folder: Path) -> type[PreTrainedTokenizerBase] | None:
    """Return the tokenizer class that the files of a folder ask for.

    Returns:
        None where AutoTokenizer is right: the folder has a tokenizer.json, or merges of byte-BPE.

    Raises:
        CheckpointError: No file of a tokenizer is in the folder.
    """
    config, own = _read(folder, "config.json"), _read(folder, "tokenizer_config.json")
    model_type, named = str(config.get("model_type")), str(own.get("tokenizer_class"))
    if named in _OWN_CLASSES:
        return _OWN_CLASSES[named]
    if (folder / NGRAM_FILE).is_file() and (folder / "vocab.txt").is_file():
        return ZenTokenizer
    if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file():
        return None
    if (folder / "vocab.txt").is_file():
        if model_type in _ZEN_TYPES:
            return ZenTokenizer
        is_pegasus = model_type == "pegasus" or "Pegasus" in named
        return JiebaPegasusTokenizer if is_pegasus else BertTokenizer
    found = find_model_file(folder)
    if found is None:
        raise CheckpointError(
            f"{folder}: no tokenizer; expected one of tokenizer.json, vocab.txt, vocab.json with "
            f"merges.txt, {', '.join(MODEL_FILES)}"
        )
    return _SENTENCEPIECE.get(model_type)


def find_model_file(folder: Path) -> Path | None:
    """Return the SentencePiece file of a folder; None if it has none."""
    return next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)


def _named_file(chosen: type[SentencePieceTokenizer], folder: Path) -> type[SentencePieceTokenizer]:
    """Return a class that looks for the SentencePiece file under the name it has here."""
    found = find_model_file(folder)
    if found is None or found.name == chosen.vocab_files_names["vocab_file"]:
        return chosen
    names = {**chosen.vocab_files_names, "vocab_file": found.name}
    return type(chosen.__name__, (chosen,), {"vocab_files_names": names})


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise CheckpointError(f"{path} is not JSON: {exc}") from None
    return value if isinstance(value, dict) else {}
