# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of Randeng-Pegasus as a class of `transformers`, for folders as published.

A folder has a vocab.txt, the number of a line being the id: pad 0, end 1, sentence mask 2, word
mask 3. AutoTokenizer finds the class once `pyfsb.tokenizers.registration` is imported. Words and
pieces are cut in `jieba_wordpiece`; nothing else is done here but what `transformers` asks for.

Source: PegasusTokenizer of IDEA-CCNL/Fengshenbang-LM at c8fb7b8, by its reference cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedTokenizer

from pyfsb.errors import DataError
from pyfsb.tokenizers.jieba_wordpiece import (
    CLASSIFIER,
    EOS,
    MASK,
    PAD,
    RENAMED,
    SENTENCE_MASK,
    SEPARATOR,
    UNKNOWN,
    JiebaWordPiece,
    join_pieces,
    load_cutter,
    read_vocabulary,
)

_UNUSUAL: Final = {
    "do_basic_tokenize": True,
    "never_split": None,
    "mask_token_sent": SENTENCE_MASK,
}
"""Options of the original that are not built, as no published folder sets them otherwise; without
basic tokens the original forgets all pieces before a word that the vocabulary lacks."""


class JiebaPegasusTokenizer(PreTrainedTokenizer):
    """jieba's words, else WordPiece; `</s>` at the end, pairs joined without a separator."""

    vocab_files_names = {"vocab_file": "vocab.txt"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        vocab_file: str,
        do_lower_case: bool = True,
        segmenter: str = "jieba",
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        **kwargs: Any,
    ) -> None:
        """Read a vocabulary.

        Args:
            vocab_file: A vocab.txt as published.
            do_lower_case: Lower-case texts before they are cut.
            segmenter: As of `load_cutter`.
            strip_accents: Of words that the vocabulary lacks. None: as `do_lower_case`.
            tokenize_chinese_chars: Words that the vocabulary lacks fall to their hanzi.
            **kwargs: Names of special tokens and whatever `PreTrainedTokenizer` takes.

        Raises:
            DataError: The vocabulary lacks a special token, its file is not at hand, or an option
                of the original is set that this class does not have.
        """
        for name, usual in _UNUSUAL.items():
            if kwargs.get(name, usual) not in (usual, None, []):
                raise DataError(f"{name} = {kwargs[name]!r}: expected {usual!r}; see {__name__}")
        if not vocab_file or not Path(vocab_file).is_file():
            raise DataError(f"no vocab.txt at {vocab_file}; a Pegasus folder has one")
        text = Path(vocab_file).read_text(encoding="utf-8")
        self._pieces = read_vocabulary(text, source=vocab_file)
        self._texts = {number: piece for piece, number in self._pieces.items()}
        self._words = JiebaWordPiece(
            self._pieces,
            lowercase=do_lower_case,
            cut=load_cutter(segmenter),
            strips_accents=strip_accents,
            splits_hanzi=tokenize_chinese_chars,
        )
        names = {
            "pad_token": PAD,
            "eos_token": EOS,
            "unk_token": UNKNOWN,
            "mask_token": MASK,
            "sep_token": SEPARATOR,
            "cls_token": CLASSIFIER,
        }
        for name, token in names.items():
            kwargs[name] = kwargs.get(name) or token
        extra = kwargs.pop("additional_special_tokens", None) or kwargs.get("extra_special_tokens")
        texts = [str(token) for token in extra or ()]
        kwargs["extra_special_tokens"] = list(dict.fromkeys([SENTENCE_MASK, *texts]))
        kwargs["clean_up_tokenization_spaces"] = True
        super().__init__(
            do_lower_case=do_lower_case,
            segmenter=segmenter,
            strip_accents=strip_accents,
            tokenize_chinese_chars=tokenize_chinese_chars,
            **kwargs,
        )

    @property
    def vocab_size(self) -> int:
        """Pieces of vocab.txt."""
        return len(self._pieces)

    @property
    def sentence_mask_token_id(self) -> int:
        """Id of the token that stands for a whole sentence."""
        return self._pieces[SENTENCE_MASK]

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every piece, added ones included."""
        return {**self._pieces, **self._added_tokens_encoder}

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Return the pieces of a text; special tokens in it are taken whole unless told not to."""
        split_special = kwargs.get("split_special_tokens", self.split_special_tokens)
        return self._words.tokenize(text, specials=() if split_special else self.get_added_vocab())

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Put the end behind one text or two."""
        return [*token_ids_0, *(token_ids_1 or ()), self.eos_token_id]

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for special tokens, 0 for others."""
        ids = [*token_ids_0, *(token_ids_1 or ())]
        special = set(self.all_special_ids)
        mask = [int(number in special) for number in ids]
        return mask if already_has_special_tokens else [*mask, 1]

    def convert_ids_to_tokens(
        self, ids: int | list[int], skip_special_tokens: bool = False
    ) -> str | list[str]:
        """Return pieces of ids; the sentence mask is no token that is skipped."""
        if isinstance(ids, int):
            return self._text_of(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        skipped.discard(self.sentence_mask_token_id)
        return [self._text_of(int(number)) for number in ids if int(number) not in skipped]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of pieces."""
        return join_pieces(tokens)

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write vocab.txt in the published form; returns its path."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = Path(save_directory) / f"{prefix}vocab.txt"
        lines = {token: line for line, token in RENAMED.items()}
        # A line that stood there twice has one id only; the other gets a name of its own.
        pieces = [
            self._texts.get(i, f"[repeated{i}]") for i in range(max(self._texts, default=-1) + 1)
        ]
        text = "".join(f"{lines.get(piece, piece)}\n" for piece in pieces)
        path.write_text(text, encoding="utf-8", newline="\n")
        return (str(path),)

    def _convert_token_to_id(self, token: str) -> int:
        return self._pieces.get(token, self._pieces[UNKNOWN])

    def _convert_id_to_token(self, index: int) -> str:
        return self._texts.get(index, UNKNOWN)

    def _text_of(self, number: int) -> str:
        added = self._added_tokens_decoder.get(number)
        return added.content if added is not None else self._convert_id_to_token(number)
