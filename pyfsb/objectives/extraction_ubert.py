# SPDX-License-Identifier: Apache-2.0
"""UBERT: one row for each kind, a square of cells over the text of each row.

Shapes: R rows of a batch, T tokens of a row, W scored tokens, P gold cells, C kinds of a sample.

    [CLS] task [SEP] subtask [SEP] kind [SEP] text [SEP]

A classification scores one token, [CLS], so its cell says whether the kind is right.

Source: fengshen/models/ubert of Fengshenbang-LM c8fb7b8. Its choice of kinds (those with spans
first, others at random) is kept; the order of the rows is that of the kinds, which no loss sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pyfsb.errors import DataError
from pyfsb.objectives.extraction import (
    MIN_TEXT_TOKENS,
    ExtractionSample,
    check_sample,
    find_cell,
    knows_pairs,
    measure_cell,
    name_longest_kind,
)
from pyfsb.objectives.protocol import Ints
from pyfsb.objectives.row_objective import (
    FrameIds,
    RowBatch,
    SampleKey,
    Small,
    Tokenize,
    cut_longest_first,
    pad_to,
)
from pyfsb.seeding import uniform

MASKED: Final = -10000.0
"""What the original adds to the logits of forbidden cells."""
_KIND = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRow:
    """The row of one kind."""

    ids_T: Small
    """Token ids."""
    first: int
    """First scored token."""
    num_scored: int
    """Tokens that are scored."""
    text_start: int
    """Where the second part begins: token types are 1 from here on."""
    cells: tuple[tuple[int, int], ...]
    """Right cells, counted from `first`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedKinds:
    """The rows of a sample."""

    rows: tuple[KindRow, ...]
    """One for each kind, in their order."""
    offsets_T2: Small
    """Characters of the text's tokens."""
    is_truncated: bool
    """True: the text was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UbertExtraction:
    """Encodes and collates for UBERT."""

    frame: FrameIds
    """Special ids."""
    max_tokens: int
    """Tokens of a row at most; longer texts are cut."""
    num_kinds: int | None = None
    """Kinds of a sample in one training batch at most: those with spans first, others at random.
    None takes all."""
    legacy_cells: bool = False
    """Allow what the original allows: cells of padding, of the last [SEP] and below the diagonal;
    rows of a sample are filled up to `num_kinds` and a sample without spans gets a false one."""

    def encode(self, sample: ExtractionSample, tokenize: Tokenize) -> EncodedKinds:
        """Return the rows of a sample.

        Raises:
            DataError: A kind leaves no room for the text; names it.
        """
        check_sample(sample)
        tokenize = knows_pairs(tokenize, self.frame.sep)
        text = tokenize(sample.text)
        sep = [self.frame.sep]
        heads = [tokenize(part).ids_T for part in (sample.task, sample.subtask)]
        questions = [
            np.concatenate([heads[0], sep, heads[1], sep, tokenize(kind).ids_T])
            for kind in sample.kinds
        ]
        sizes = [question.size for question in questions]
        room = self.max_tokens - 3 - max(sizes)
        if self.legacy_cells:
            return self._encode_legacy(sample, questions, tokenize)
        if room < min(MIN_TEXT_TOKENS, text.ids_T.size):
            raise DataError(name_longest_kind(sample.kinds, sizes, room, self.max_tokens))
        # All rows see the same text, so that cells of different kinds can be compared.
        ids_T, offsets_T2, is_cut = (
            text.ids_T[:room],
            text.offsets_T2[:room],
            text.ids_T.size > room,
        )
        rows = []
        for number, question in enumerate(questions):
            cells = [
                find_cell(offsets_T2, span.start, span.end, is_cut=is_cut)
                for span in sample.spans
                if span.kind == number
            ]
            if sample.is_classification:
                cells = [(0, 0)] if number in sample.answers else []
            rows.append(
                KindRow(
                    ids_T=self._frame(question, ids_T),
                    first=0 if sample.is_classification else question.size + 2,
                    num_scored=1 if sample.is_classification else ids_T.size,
                    text_start=question.size + 2,
                    cells=tuple(dict.fromkeys(cell for cell in cells if cell)),
                )
            )
        return EncodedKinds(rows=tuple(rows), offsets_T2=offsets_T2, is_truncated=is_cut)

    def count_tokens(self, encoded: EncodedKinds) -> int:
        """Return the tokens of a sample's rows; of more than `num_kinds` those of the longest."""
        sizes = sorted((row.ids_T.size for row in encoded.rows), reverse=True)
        return sum(sizes[: self.num_kinds])

    def collate(self, encoded: Sequence[EncodedKinds], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch."""
        orders = [self._choose(sample, key) for sample, key in zip(encoded, keys, strict=True)]
        if self.legacy_cells:
            return self.collate_legacy(encoded, orders)
        rows = [
            sample.rows[kind]
            for sample, order in zip(encoded, orders, strict=True)
            for kind in order
        ]
        cells = [(number, *cell) for number, row in enumerate(rows) for cell in row.cells]
        gold_P3 = np.array(cells, dtype=np.int64).reshape(-1, 3)
        arrays = self.collate_inputs(rows) | {
            "samples": np.repeat(np.arange(len(encoded)), [len(order) for order in orders]),
            "gold_rows": gold_P3[:, 0],
            "gold_firsts": gold_P3[:, 1],
            "gold_lasts": gold_P3[:, 2],
        }
        return RowBatch(
            arrays=arrays,
            num_targets=len(encoded),
            num_tokens=sum(row.ids_T.size for row in rows),
        )

    def collate_inputs(self, rows: Sequence[KindRow]) -> dict[str, np.ndarray]:
        """Return what the model takes.

        Returns:
            `input_ids`, `attention_mask`, `token_type_ids` [R, T]; `firsts` and `counts` [R], the
            scored tokens of each row.
        """
        sizes = [row.ids_T.size for row in rows]
        return {
            "input_ids": pad_to([row.ids_T for row in rows], fill=self.frame.pad),
            "attention_mask": pad_to([np.ones(size, dtype=np.int32) for size in sizes], fill=0),
            "token_type_ids": pad_to([_types(row) for row in rows], fill=0),
            "firsts": np.array([row.first for row in rows], dtype=np.int64),
            "counts": np.array([row.num_scored for row in rows], dtype=np.int64),
        }

    def collate_legacy(
        self, encoded: Sequence[EncodedKinds], orders: Sequence[Sequence[int]]
    ) -> RowBatch:
        """Return a batch of the original's form: squares of whole rows, [B, C, T, T].

        Args:
            encoded: Samples.
            orders: The kinds of each, in the order of their rows.
        """
        num_kinds = self.num_kinds or max(len(order) for order in orders)
        shape = (len(encoded), num_kinds, self.max_tokens)
        arrays = {
            name: np.zeros(shape, dtype=np.int64)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        labels = np.zeros((*shape, self.max_tokens), dtype=np.float32)
        mask = np.full(labels.shape, MASKED, dtype=np.float32)
        for number, (sample, order) in enumerate(zip(encoded, orders, strict=True)):
            for place, kind in enumerate(order[:num_kinds]):
                row = sample.rows[kind]
                at = (number, place, slice(row.ids_T.size))
                arrays["input_ids"][at], arrays["attention_mask"][at] = row.ids_T, 1
                arrays["token_type_ids"][at] = _types(row)
                open_cells = slice(row.first, row.first + row.num_scored)
                mask[number, place, open_cells, open_cells] = 0
                for first, last in row.cells:
                    labels[number, place, first + row.first, last + row.first] = 1
            if not labels[number].any():
                labels[number, -1, -1, -1], mask[number, -1, -1, -1] = 1, -MASKED
        num_tokens = int(arrays["attention_mask"].sum())
        return RowBatch(
            arrays={**arrays, "span_labels": labels, "span_mask": mask},
            num_targets=len(encoded),
            num_tokens=num_tokens,
        )

    def _choose(self, sample: EncodedKinds, key: SampleKey) -> list[int]:
        """Choose kinds for this pass: those with spans first."""
        kinds = list(range(len(sample.rows)))
        if self.num_kinds is None or (len(kinds) <= self.num_kinds and not self.legacy_cells):
            return kinds
        draws = uniform(key.seed, key.data_pass, _KIND, key.sample_id, np.arange(len(kinds)))
        if self.legacy_cells:
            kinds.sort(key=lambda kind: -1.0 if sample.rows[kind].cells else draws[kind])
            return kinds[: self.num_kinds]
        kinds.sort(key=lambda kind: (not sample.rows[kind].cells, draws[kind]))
        return sorted(kinds[: self.num_kinds])

    def _frame(self, question: Small, text: Small) -> Small:
        cls, sep = [self.frame.cls], [self.frame.sep]
        return np.concatenate([cls, question, sep, text, sep]).astype(np.int32)

    def _encode_legacy(
        self, sample: ExtractionSample, questions: Sequence[Small], tokenize: Tokenize
    ) -> EncodedKinds:
        """Cut the longer part of a row, and let everything behind the question be scored."""
        text, rows, is_truncated = tokenize(sample.text), [], False
        for number, question in enumerate(questions):
            kept = cut_longest_first(question.size, text.ids_T.size, self.max_tokens - 3)
            is_truncated |= sum(kept) < question.size + text.ids_T.size
            first = question.size + 2
            cells = [
                measure_cell(sample.text, span.start, span.end, tokenize)
                for span in sample.spans
                if span.kind == number
            ]
            if sample.is_classification:
                first, cells = 0, [(0, 0)] if number in sample.answers else []
            limit = self.max_tokens - first
            rows.append(
                KindRow(
                    ids_T=self._frame(question[: kept[0]], text.ids_T[: kept[1]]),
                    first=first,
                    num_scored=1 if sample.is_classification else limit,
                    text_start=kept[0] + 2,
                    cells=tuple(cell for cell in cells if max(cell) < limit),
                )
            )
        return EncodedKinds(rows=tuple(rows), offsets_T2=text.offsets_T2, is_truncated=is_truncated)


def _types(row: KindRow) -> Ints:
    types_T = np.zeros(row.ids_T.size, dtype=np.int64)
    types_T[row.text_start :] = 1
    return types_T
