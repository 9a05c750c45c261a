# SPDX-License-Identifier: Apache-2.0
"""Texts to token ids, and rows of tokens to padded batches of about equal length.

Fine-tuning and prediction encode with the same function, so a model is asked what it was taught.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.data.normalizing import normalise_text
from pyfsb.inference.protocol import TextInput
from pyfsb.models.plain_text import plain_twin

BATCH_TOKENS: Final = 8192
"""Padded tokens of one forward pass at most, unless one row alone is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """The tokens of one input, special tokens included."""

    ids: tuple[int, ...]
    """Token ids."""
    types: tuple[int, ...]
    """Token types: 0 for the first text, 1 for the second."""
    offsets: tuple[tuple[int, int], ...]
    """Characters of each token in the text that was tokenised; (0, 0) for special tokens."""
    is_truncated: bool
    """True: tokens were cut off."""
    sequences: tuple[int | None, ...] = ()
    """Which text each token is of, 0 or 1; None of special tokens."""


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[TextInput],
    *,
    max_tokens: int,
    keeps_characters: bool = False,
    cuts_second: bool = False,
    keeps_specials: bool = False,
) -> list[EncodedRow]:
    """Tokenise inputs; what reads like a special token in a text is text like any other.

    Args:
        tokenizer: The model's.
        inputs: Texts or pairs.
        max_tokens: Longer rows are cut at the end, the longer text of a pair first.
        keeps_characters: True leaves the text as it is, so that offsets point into it; otherwise
            it is normalised as the corpus was.
        cuts_second: True cuts the second text of pairs only.
        keeps_specials: True lets special tokens written in a text count, such as [MASK].
    """
    clean = _without_zeros if keeps_characters else normalise_text
    texts = [clean(item.text) for item in inputs]
    pairs = [clean(item.text_pair or "") for item in inputs]
    encoded = (tokenizer if keeps_specials else plain_twin(tokenizer))(
        texts,
        pairs if any(pairs) else None,
        truncation="only_second" if cuts_second else "longest_first",
        max_length=max_tokens,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        return_overflowing_tokens=False,
    )
    encodings = encoded.encodings or []
    return [
        EncodedRow(
            ids=tuple(encoding.ids),
            types=tuple(encoding.type_ids),
            offsets=tuple(encoding.offsets),
            is_truncated=bool(encoding.overflowing),
            sequences=tuple(encoding.sequence_ids),
        )
        for encoding in encodings
    ]


def _without_zeros(text: str) -> str:
    """Return a text of the same length without U+0000, which marks hidden names in the twin."""
    return text.replace("\0", " ")


def pad_rows(rows: Sequence[EncodedRow], *, pad_id: int) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and `token_type_ids`, each [B, T]."""
    width = max(len(row.ids) for row in rows)
    shape = (len(rows), width)
    ids_BT = np.full(shape, pad_id, dtype=np.int64)
    mask_BT = np.zeros(shape, dtype=np.int64)
    types_BT = np.zeros(shape, dtype=np.int64)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids_BT[number, :length] = row.ids
        types_BT[number, :length] = row.types
        mask_BT[number, :length] = 1
    arrays: Mapping[str, NDArray[np.int64]] = {
        "input_ids": ids_BT,
        "attention_mask": mask_BT,
        "token_type_ids": types_BT,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def model_inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what a model takes of a batch, on its device.

    Args:
        model: Those without types of tokens get none.
        tokenizer: One with an n-gram lexicon adds the n-grams of the rows.
        batch: From `pad_rows`.
    """
    inputs = dict(batch)
    if getattr(model.config, "type_vocab_size", 0) < 2:
        inputs.pop("token_type_ids", None)
    if hasattr(model, "match_ngrams"):
        inputs |= model.match_ngrams(tokenizer, inputs["input_ids"], inputs["attention_mask"])
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def group_by_length(
    rows: Sequence[EncodedRow], *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[list[int]]:
    """Yield the numbers of rows that make one batch: sorted by length, bounded in padded tokens."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
    group: list[int] = []
    for number in order:
        if group and (len(group) + 1) * len(rows[number].ids) > batch_tokens:
            yield group
            group = []
        group.append(number)
    if group:
        yield group
