"""Reference cases of models that take rows with texts: their tokenizer, samples and tensors."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.models.loading import load_tokenizer
from pyfsb.objectives.row_objective import PLACE, Tokenize, Tokenized
from tests.helpers.reference import ReferenceCase


@cache
def case_tokenizer(case: ReferenceCase) -> PreTrainedTokenizerBase:
    """The tokenizer of a case's vocab.txt, special tokens in texts counting as such."""
    pieces = (case.folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer([piece for piece in pieces if piece], Path(folder), lowercase=True)
        return load_tokenizer(Path(folder))


def original_tokenize(case: ReferenceCase) -> Tokenize:
    """What the originals tokenise with: special tokens written in a text count as such."""
    tokenizer = case_tokenizer(case)

    def tokenize(text: str, template: str = PLACE, /) -> Tokenized:
        filled = template.replace(PLACE, text)
        found = tokenizer(filled, add_special_tokens=False, return_offsets_mapping=True)
        return Tokenized(
            ids_T=np.asarray(found["input_ids"], dtype=np.int32),
            offsets_T2=np.asarray(found["offset_mapping"], dtype=np.int32).reshape(-1, 2),
        )

    return tokenize


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(values)) for name, values in arrays.items()}


def deviation(found: Any, expected: Any) -> float:
    """The largest absolute difference; shapes must be equal."""
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    assert found.shape == expected.shape
    return float((found - expected).abs().max()) if found.numel() else 0.0


def original_offsets(
    text: str, tokenizer: PreTrainedTokenizerBase, *, writes_whole_names: bool = False
) -> list[list[int]]:
    """Characters of each token of a text, as the originals find them.

    They take [UNK] and other special tokens for one character (UniEX writes down as many as the
    name has, but goes on after one).
    """
    normal, places = "", []
    for place, character in enumerate(text.lower()):
        plain = "".join(
            c for c in unicodedata.normalize("NFD", character) if unicodedata.category(c) != "Mn"
        )
        plain = "".join(
            c
            for c in plain
            if ord(c) not in (0, 0xFFFD) and unicodedata.category(c) not in ("Cc", "Cf")
        )
        normal += plain
        places += [place] * len(plain)
    found, offset = [], 0
    for piece in tokenizer.tokenize(text):
        if piece.startswith("[") and piece.endswith("]"):
            width = len(piece) if writes_whole_names else 1
            found.append([offset + place for place in range(width)])
            offset += 1
            continue
        piece = piece.removeprefix("##")
        start = normal[offset:].index(piece) + offset
        offset = start + len(piece)
        found.append(places[start:offset])
    return found
