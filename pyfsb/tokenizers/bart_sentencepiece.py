# SPDX-License-Identifier: Apache-2.0
"""SentencePiece tokenizers of the family as classes of `transformers`: BART, T5 and others.

One class a layout; they differ in the names of special tokens and in what is put around a text.
Built from a published `.model` file, or from the tokenizer.json that they save. Called through
`pyfsb.tokenizers.choosing`; AutoTokenizer finds saved ones once `registration` is imported, and
without it reads the same tokenizer.json.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from pyfsb.errors import DataError
from pyfsb.tokenizers.sentencepiece_model import (
    SentencePieceModel,
    build_tokenizer,
    read_sentencepiece,
)

_SENTINEL = re.compile(r"▁?<extra_id_\d+>")


class SentencePieceTokenizer(PreTrainedTokenizerFast):
    """What the classes below share; on its own it puts nothing around a text.

    Source: Randeng-Transformer's tokenizer (fengshen/models/transfo_xl_denoise at c8fb7b8), whose
    only special token is `<|endoftext|>`, the id after the last piece.
    """

    vocab_files_names = {"vocab_file": "spiece.model", "tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]
    names: ClassVar[dict[str, str]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    """Special tokens unless the folder's tokenizer_config.json names others."""
    required: ClassVar[tuple[str, ...]] = ()
    """Those that must be pieces of the model."""
    single: ClassVar[str] = "$A"
    pair: ClassVar[str] = "$A $B"
    """What stands around one text and two; BOS, EOS, CLS, SEP are replaced by the tokens."""

    @classmethod
    def convert_to_native_format(cls, **kwargs: Any) -> dict[str, Any]:
        """Build the tokenizer from a `.model` file where there is no tokenizer.json.

        Raises:
            DataError: The file is none, or lacks a special token.
        """
        vocab_file = kwargs.get("vocab_file")
        for name, token in cls.names.items():
            kwargs[name] = kwargs.get(name) or token
        json_file = kwargs.get("tokenizer_file")
        if (json_file and Path(json_file).is_file()) or not vocab_file:
            return dict(super().convert_to_native_format(**kwargs))
        for unused in ("vocab_file", "tokenizer_file", "vocab", "sp_model_kwargs", "extra_ids"):
            kwargs.pop(unused, None)
        model = read_sentencepiece(Path(vocab_file))
        for name in cls.required:
            if model.find(str(kwargs[name])) is None:
                raise DataError(f"{vocab_file}: no piece {kwargs[name]} ({name} of {cls.__name__})")
        extra = cls.sentinels(model)
        if extra:
            kwargs["extra_special_tokens"] = extra
            kwargs.pop("additional_special_tokens", None)
        texts = [str(kwargs[name]) for name in cls.names]
        tokenizer = build_tokenizer(model, specials=[*extra, *texts])
        tokenizer.post_processor = cls._around(tokenizer, kwargs)
        return {**kwargs, "tokenizer_object": tokenizer}

    @classmethod
    def sentinels(cls, model: SentencePieceModel) -> list[str]:
        """Return further special tokens of a model; none but for T5."""
        return []

    @classmethod
    def _around(cls, tokenizer: Any, kwargs: dict[str, Any]) -> Any:
        texts = {
            name.removesuffix("_token").upper(): str(kwargs[name])
            for name in cls.names
            if kwargs[name]
        }
        used = [token for mark, token in texts.items() if mark in cls.pair.split()]
        return processors.TemplateProcessing(
            single=[texts.get(part, part) for part in cls.single.split()],
            pair=[texts.get(part, part) for part in cls.pair.split()],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(used)],
        )


class BartSentencePieceTokenizer(SentencePieceTokenizer):
    """Randeng-BART-139M: BPE of 40 k pieces; `<s>` in front and `</s>` behind are put here.

    The published folder says T5Tokenizer, which puts only `</s>`: users had to add `<s>` to each
    text themselves. Source: examples/pretrain_randeng_bart at c8fb7b8; the pair form is BART's.
    """

    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    required = ("bos_token", "eos_token")
    single = "BOS $A EOS"
    pair = "BOS $A EOS EOS $B EOS"


class T5SentencePieceTokenizer(SentencePieceTokenizer):
    """Randeng-T5 and mT5: `</s>` behind; sentinels are pieces of the model already.

    A model without them gets a hundred behind its pieces, the first one last. Source: published
    folders set extra_ids = 0; order of T5Tokenizer in transformers.
    """

    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    required = ("eos_token",)
    single = "$A EOS"
    pair = "$A EOS $B EOS"

    @classmethod
    def sentinels(cls, model: SentencePieceModel) -> list[str]:
        """Return the sentinels, those of the model if it has any."""
        own = [piece.text for piece in model.pieces if _SENTINEL.fullmatch(piece.text)]
        return own or [f"<extra_id_{number}>" for number in range(99, -1, -1)]


class DebertaSentencePieceTokenizer(SentencePieceTokenizer):
    """Erlangshen-DeBERTa-v2-186M: `[CLS]` and `[SEP]` around texts, `[MASK]` behind the pieces."""

    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    names = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    required = ("cls_token", "sep_token")
    single = "CLS $A SEP"
    pair = "CLS $A SEP $B:1 SEP:1"

    @classmethod
    def _around(cls, tokenizer: Any, kwargs: dict[str, Any]) -> Any:
        cls_token, sep_token = str(kwargs["cls_token"]), str(kwargs["sep_token"])
        return processors.TemplateProcessing(
            single=f"{cls_token}:0 $A:0 {sep_token}:0",
            pair=f"{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
            special_tokens=[
                (token, tokenizer.token_to_id(token)) for token in (cls_token, sep_token)
            ],
        )


class LlamaSentencePieceTokenizer(SentencePieceTokenizer):
    """Ziya-LLaMA: BPE with byte fallback; `<s>` in front, nothing behind."""

    vocab_files_names = {"vocab_file": "tokenizer.model", "tokenizer_file": "tokenizer.json"}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    required = ("bos_token", "eos_token")
    single = "BOS $A"
    pair = "BOS $A BOS $B"
