# SPDX-License-Identifier: Apache-2.0
"""BERT's tokenizer with an n-gram lexicon beside its vocabulary: what ZEN's folders hold.

The lexicon is kept line by line, so saving and loading changes nothing. Registered with
AutoTokenizer by the ZEN architectures; loading works without ngram.txt, asking for it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import BertTokenizer

from pyfsb.errors import DataError
from pyfsb.tokenizers.ngram_lexicon import NGRAM_FILE, NgramKind, NgramLexicon


class ZenTokenizer(BertTokenizer):
    """WordPiece, and ngram.txt."""

    vocab_files_names = {**BertTokenizer.vocab_files_names, "ngram_file": NGRAM_FILE}

    def __init__(self, *args: Any, ngram_file: str | None = None, **kwargs: Any) -> None:
        """Read the lexicon, if there is one.

        Args:
            *args: As of BertTokenizer.
            ngram_file: The lexicon; None: the folder has none.
            **kwargs: As of BertTokenizer.
        """
        super().__init__(*args, **kwargs)
        self._ngram_lines: tuple[str, ...] | None = None
        if ngram_file is not None:
            with Path(ngram_file).open(encoding="utf-8") as text:
                self._ngram_lines = tuple(line.removesuffix("\n") for line in text)
        self._lexicons: dict[NgramKind, NgramLexicon] = {}

    def lexicon(self, kind: NgramKind | str) -> NgramLexicon:
        """Return the lexicon with the conventions of a model.

        Args:
            kind: zen1 or zen2, which are the models' `model_type`.

        Raises:
            DataError: The tokenizer came without ngram.txt, or it is wrong.
        """
        chosen = NgramKind(kind)
        if self._ngram_lines is None:
            raise DataError(
                f"{self.name_or_path or 'the tokenizer'} has no n-gram lexicon; {chosen} needs "
                f"{NGRAM_FILE} beside its vocabulary: take that of the checkpoint"
            )
        if chosen not in self._lexicons:
            self._lexicons[chosen] = NgramLexicon(
                self._ngram_lines,
                kind=chosen,
                encode=lambda texts: self(texts, add_special_tokens=False)["input_ids"],
                unknown_id=self.unk_token_id,
            )
        return self._lexicons[chosen]

    def _save_pretrained(
        self,
        save_directory: str,
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        """Write the lexicon beside what BertTokenizer writes; returns all paths."""
        names = super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)
        if self._ngram_lines is None:
            return tuple(names)
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = Path(save_directory) / f"{prefix}{NGRAM_FILE}"
        text = "".join(f"{line}\n" for line in self._ngram_lines)
        path.write_text(text, encoding="utf-8", newline="\n")
        return (*names, str(path))
