# SPDX-License-Identifier: Apache-2.0
"""What objectives on labelled rows share: rows encoded once, then collated pass by pass.

Shapes: B samples, R rows of a batch, T tokens of a padded row.

Unlike objectives on shards, these make padded rows, since their models look at squares of tokens.
Implemented by `multiple_choice`, `extraction_ubert` and `extraction_uniex`; read by training and
inference. Never holds a tokenizer: texts come in through a callable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyfsb.objectives.protocol import Ints

Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"
Small: TypeAlias = NDArray[np.int32]
Sample = TypeVar("Sample", contravariant=True)
Encoded = TypeVar("Encoded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenized:
    """A text without special tokens around it."""

    ids_T: Small
    """Token ids."""
    offsets_T2: Small
    """First character of each token, and one past its last, in the text that was tokenised."""


PLACE: Final = "{text}"
"""Where the text stands in a template."""


class Tokenize(Protocol):
    """Turns a text into tokens."""

    def __call__(self, text: str, template: str = PLACE, /) -> Tokenized:
        """Return the tokens of a text in its template, without special tokens around.

        Args:
            text: The user's; what reads like a special token in it is text like any other.
            template: What stands around the text, with {text} where it goes, or without a place;
                special tokens that it names count as such. Offsets are of the filled template.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameIds:
    """The ids that rows are built with."""

    pad: int
    cls: int
    sep: int
    mask: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKey:
    """What the random choices about one sample depend on."""

    seed: int
    sample_id: int
    data_pass: int
    """The pass over the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """What a loss module takes."""

    arrays: Arrays
    """By the names of its arguments."""
    num_targets: int
    """Samples: the loss of each counts once."""
    num_tokens: int
    """Tokens of all rows, padding aside."""


class RowObjective(Protocol[Sample, Encoded]):
    """Encodes samples and collates them."""

    def encode(self, sample: Sample, tokenize: Tokenize) -> Encoded:
        """Return what is kept of a sample.

        Raises:
            DataError: The sample does not fit the model; names what is too long.
        """

    def count_tokens(self, encoded: Encoded) -> int:
        """Return the tokens of a sample's rows at most, padding aside."""

    def collate(self, encoded: Sequence[Encoded], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch; the same arguments give the same batch."""


def cut_longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how much of two texts fits: tokens go from the end of the longer one, ties the second.

    Args:
        first: Tokens of the first text.
        second: Tokens of the second text.
        room: Tokens that both may have together.

    Source: truncation `longest_first` of Hugging Face tokenizers.
    """
    over = first + second - room
    if over <= 0:
        return first, second
    level = abs(first - second)
    if first > second:
        first -= min(over, level)
    else:
        second -= min(over, level)
    rest = max(0, over - level)
    return max(0, first - rest // 2), max(0, second - (rest + 1) // 2)


def pad_to(rows: Sequence[NDArray[Any]], *, fill: int, width: int | None = None) -> Ints:
    """Return rows of numbers as one array, [R, T].

    Args:
        rows: Numbers of each row.
        fill: What follows on them.
        width: Length of a row; None takes the longest.
    """
    width = max((row.size for row in rows), default=0) if width is None else width
    padded = np.full((len(rows), width), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        padded[number, : row.size] = row
    return padded
