# SPDX-License-Identifier: Apache-2.0
"""Registers our tokenizers with AutoTokenizer; importing this module is all there is to do.

Imported by `pyfsb.models.loading`. A folder that says PegasusTokenizer may be a Chinese or an
English one, so that name leads to a class that looks at the files; likewise for configs whose
default tokenizer is wrong for the family's folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import transformers
from transformers import (
    AutoTokenizer,
    BartConfig,
    DebertaV2Config,
    PegasusConfig,
    PreTrainedTokenizerBase,
)

from pyfsb.errors import CheckpointError
from pyfsb.tokenizers import bart_sentencepiece as sentencepiece
from pyfsb.tokenizers.choosing import choose_class, load_tokenizer
from pyfsb.tokenizers.pegasus import JiebaPegasusTokenizer


class _ByFiles:
    """Stands in for a class of `transformers` and decides when a folder is at hand."""

    default: str

    @classmethod
    def from_pretrained(cls, folder: str | Path, *inputs: Any, **options: Any) -> Any:
        """Return our tokenizer for a folder of the family, that of `transformers` for any other."""
        theirs: Any = getattr(transformers, cls.default)
        if not Path(folder).is_dir():
            return theirs.from_pretrained(folder, *inputs, **options)
        try:
            chosen: type[PreTrainedTokenizerBase] | None = choose_class(Path(folder))
        except CheckpointError:
            chosen = None
        if chosen is None:
            return theirs.from_pretrained(folder, *inputs, **options)
        return load_tokenizer(Path(folder))


class PegasusTokenizer(_ByFiles):
    """Chinese Pegasus folders have a vocab.txt, English ones a spiece.model."""

    default = "PegasusTokenizer"


class _BartByFiles(_ByFiles):
    """BART folders hold byte-BPE (English), WordPiece (759M) or SentencePiece (139M)."""

    default = "BartTokenizer"


class _DebertaByFiles(_ByFiles):
    """DeBERTa-v2 folders of the family hold WordPiece but for one."""

    default = "DebertaV2Tokenizer"


_BY_CONFIG: Final = (
    (PegasusConfig, PegasusTokenizer),
    (BartConfig, _BartByFiles),
    (DebertaV2Config, _DebertaByFiles),
)
_BY_NAME: Final = (
    JiebaPegasusTokenizer,
    sentencepiece.SentencePieceTokenizer,
    sentencepiece.BartSentencePieceTokenizer,
    sentencepiece.T5SentencePieceTokenizer,
    sentencepiece.DebertaSentencePieceTokenizer,
    sentencepiece.LlamaSentencePieceTokenizer,
)


def register() -> None:
    """Enter the classes by config and by name; doing it twice changes nothing."""
    for config, tokenizer in _BY_CONFIG:
        AutoTokenizer.register(config, tokenizer_class=tokenizer, exist_ok=True)
    from transformers.models.auto.tokenization_auto import REGISTERED_TOKENIZER_CLASSES

    for named in _BY_NAME:
        REGISTERED_TOKENIZER_CLASSES[named.__name__] = named


register()
