# SPDX-License-Identifier: Apache-2.0
"""Labelled rows as training samples, in flat batches.

Built by `finetune`; the loader's threads call `collate`. Never decides which row comes when.

Shapes: B rows of a batch, N tokens of all its rows end to end, P predicted positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pyfsb.config import Family, TaskSpec
from pyfsb.data.labelled import Example
from pyfsb.inference.encoding import EncodedRow, encode_rows
from pyfsb.inference.protocol import TextInput
from pyfsb.inference.tag import bio_labels, encode_entities
from pyfsb.tokenizers.ngram_lexicon import NgramLexicon, NgramLimit
from pyfsb.training.protocol import Batch

Ints: TypeAlias = NDArray[np.int64]
_Small: TypeAlias = NDArray[np.int32]
_CHUNK_ROWS: Final = 4096
"""Rows that are tokenised together: what the tokenizer gives takes 20 times the ids' memory."""


class RowSource:
    """Labelled rows as training samples, numbered as given."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        task: TaskSpec,
        *,
        max_tokens: int,
        lexicon: NgramLexicon | None = None,
        ngram_limit: NgramLimit | None = None,
    ) -> None:
        """Tokenise rows and keep them with their gold answers.

        Args:
            tokenizer: The model's.
            examples: Rows with gold answers.
            task: Family and labels.
            max_tokens: Tokens of a row at most; longer ones are cut.
            lexicon: Of a model that reads n-grams.
            ngram_limit: How many of them a row may have, as in prediction; None: any number.
        """
        self._lexicon, self._ngram_limit = lexicon, ngram_limit
        self._is_tagging = task.family is Family.TAG
        labels = bio_labels(task.labels) if self._is_tagging else list(task.labels)
        number_of = {label: number for number, label in enumerate(labels)}
        ids: list[_Small] = []
        types: list[_Small] = []
        targets: list[_Small] = []
        positions: list[_Small] = []
        for row, example in _encode(tokenizer, examples, max_tokens, self._is_tagging):
            ids.append(_small(row.ids))
            types.append(_small(row.types))
            if self._is_tagging:
                places, tags = _tag(row, example, labels)
                positions.append(_small(places))
                targets.append(_small(tags))
            else:
                targets.append(_small([number_of[str(example.label)]]))
        self._ids, self._types = _Lists(ids), _Lists(types)
        self._targets, self._positions = _Lists(targets), _Lists(positions)
        self.lengths: Ints = self._ids.lengths

    def collate(self, sample_ids: Ints, passes: Ints) -> Batch:
        """Return the flat batch of these rows; the pass does not matter."""
        del passes
        lengths_B = self.lengths[sample_ids]
        target_ids = self._targets.take(sample_ids)
        inputs = {
            "input_ids": self._ids.take(sample_ids),
            "lengths": lengths_B,
            "token_type_ids": self._types.take(sample_ids),
            "target_ids": target_ids,
        }
        if self._is_tagging:
            starts_B = np.cumsum(lengths_B) - lengths_B
            starts_P = np.repeat(starts_B, self._targets.lengths[sample_ids])
            inputs["target_positions"] = self._positions.take(sample_ids) + starts_P
        if self._lexicon is not None:
            found = self._lexicon.find(inputs["input_ids"], lengths_B, limit=self._ngram_limit)
            inputs |= found.arguments
        tensors: dict[str, Tensor] = {k: torch.from_numpy(v) for k, v in inputs.items()}
        return Batch(inputs=tensors, num_targets=target_ids.size, num_tokens=int(lengths_B.sum()))


class _Lists:
    """Lists of small integers end to end: their own bytes and 16 a list, no objects."""

    def __init__(self, lists: Iterable[_Small]) -> None:
        arrays = list(lists)
        self.lengths: Ints = np.array([array.size for array in arrays], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._items = np.concatenate(arrays or [np.empty(0, dtype=np.int32)])

    def take(self, numbers: Ints) -> Ints:
        """Return the lists of these numbers, end to end."""
        counts = self.lengths[numbers]
        shifts = np.repeat(self._starts[numbers] - (np.cumsum(counts) - counts), counts)
        taken: Ints = self._items[shifts + np.arange(shifts.size)].astype(np.int64)
        return taken


def _small(items: Sequence[int]) -> _Small:
    return np.asarray(items, dtype=np.int32)


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_tokens: int,
    keeps_characters: bool,
) -> Iterator[tuple[EncodedRow, Example]]:
    """Yield the rows with their tokens, a bounded number at a time."""
    for start in range(0, len(examples), _CHUNK_ROWS):
        chunk = examples[start : start + _CHUNK_ROWS]
        inputs = [TextInput(text=row.text, text_pair=row.text_pair) for row in chunk]
        rows = encode_rows(
            tokenizer, inputs, max_tokens=max_tokens, keeps_characters=keeps_characters
        )
        yield from zip(rows, chunk, strict=True)


def _tag(row: EncodedRow, example: Example, labels: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return positions in the row and BIO label ids of its real tokens."""
    spans = [(entity.start, entity.end, entity.type) for entity in example.entities or ()]
    return encode_entities(row, spans, labels)
