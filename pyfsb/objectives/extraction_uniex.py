# SPDX-License-Identifier: Apache-2.0
"""UniEX: all kinds and relations before the text in one row, a cube of cells over the text.

Shapes: B samples, T tokens of a row, W scored tokens, L label slots (the first is [CLS]: is this
a span at all), P gold cells, G gold spans.

    [CLS] task [SEP] [E] kind 1 [E] kind 2 … [SEP] [R] predicate 1 … [SEP] text [SEP]

Kinds do not see each other and share positions, likewise the predicates; a predicate and the kinds
that the schema joins it with do see each other. [CLS] and what stands before the text do not. So
kinds cost tokens but hardly positions.

Source: fengshen/models/uniex of Fengshenbang-LM c8fb7b8. Schemas of events are not built.
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
    Floats,
    check_sample,
    find_cell,
    knows_pairs,
    measure_cell,
    name_longest_kind,
)
from pyfsb.objectives.protocol import Bits
from pyfsb.objectives.row_objective import (
    FrameIds,
    RowBatch,
    SampleKey,
    Small,
    Tokenize,
    pad_to,
)

MAX_ROW_TOKENS: Final = 4096
"""Tokens of a row at most: its square is computed (our choice)."""
MASKED: Final = -10000.0
"""What the original adds to the logits of forbidden cells."""
INDEX_SLOT: Final = 0
"""Label slot of "this is a span"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSchema:
    """One row."""

    ids_T: Small
    """Token ids."""
    positions_T: Small
    """Position of each token."""
    labels_L: Small
    """Where the token of each label slot stands, [CLS] first, then kinds, then predicates."""
    blocks: tuple[tuple[int, int], ...]
    """First token of each kind and predicate, and one past its last."""
    joined: tuple[tuple[int, int], ...]
    """Blocks that see each other: numbers of a kind's and a predicate's."""
    num_kinds: int
    """Kinds among the label slots."""
    query_end: int
    """The [SEP] before the text."""
    num_text: int
    """Tokens of the text."""
    offsets_T2: Small
    """Characters of these."""
    cells: tuple[tuple[int, int, int], ...]
    """Right cells: tokens counted in the text, and label slot."""
    spans: tuple[tuple[int, int], ...]
    """Gold spans, each once."""
    related: tuple[tuple[int, int], ...]
    """Those of them that a relation holds for."""
    is_truncated: bool
    """True: the text was cut."""

    @property
    def visible_TT(self) -> Bits:
        """Whether the token of a row sees that of a column."""
        visible_TT = np.ones((self.ids_T.size, self.ids_T.size), dtype=np.bool_)
        visible_TT[0, 1 : self.blocks[-1][1]] = False
        visible_TT[1 : self.blocks[-1][1], 0] = False
        for start, end in self.blocks:
            for other, other_end in self.blocks:
                visible_TT[start:end, other:other_end] = start == other
        for kind, predicate in self.joined:
            first, second = slice(*self.blocks[kind]), slice(*self.blocks[predicate])
            visible_TT[first, second] = visible_TT[second, first] = True
        return visible_TT


@dataclass(frozen=True, slots=True, kw_only=True)
class UniexExtraction:
    """Encodes and collates for UniEX."""

    frame: FrameIds
    """Special ids."""
    kind_id: int
    """What stands before a kind."""
    predicate_id: int
    """What stands before a predicate."""
    max_positions: int
    """Positions of a row at most; with `legacy_cells` tokens."""
    two_step: bool = False
    """First decide what is a span, then of which kind: in training only right spans have kinds."""
    legacy_cells: bool = False
    """Count the [SEP] before the text as its first token, so that the last one is never scored,
    allow the cells that the original allows and cut the row as it does."""

    def encode(self, sample: ExtractionSample, tokenize: Tokenize) -> EncodedSchema:
        """Return the row of a sample.

        Raises:
            DataError: Kinds leave no room for the text; names the longest.
        """
        check_sample(sample)
        tokenize = knows_pairs(tokenize, self.frame.sep)
        layout = _Layout(self, sample, tokenize)
        text = tokenize(sample.text)
        if self.legacy_cells:
            ids = text.ids_T[: self.max_positions - layout.query_end]
            num_text = ids.size
            ids_T = np.concatenate([layout.ids, ids])[: self.max_positions - 1]
        else:
            room = self.max_positions - layout.text_position - 1
            if room < min(MIN_TEXT_TOKENS, text.ids_T.size):
                names = [*sample.kinds, *sample.predicates]
                sizes = [end - start - 1 for start, end in layout.blocks]
                raise DataError(name_longest_kind(names, sizes, room, self.max_positions))
            ids_T = np.concatenate([layout.ids, text.ids_T[:room]])
            num_text = min(room, text.ids_T.size)
        if ids_T.size >= MAX_ROW_TOKENS:
            raise DataError(
                f"{len(layout.blocks)} kinds and predicates of {layout.query_end} tokens make a "
                f"row of {ids_T.size + 1}; at most {MAX_ROW_TOKENS} fit: give fewer"
            )
        ids_T = np.append(ids_T, self.frame.sep).astype(np.int32)
        offsets_T2, is_cut = text.offsets_T2[:num_text], num_text < text.ids_T.size
        num_cells = ids_T.size - layout.query_end
        placed = self._find_spans(sample, tokenize, offsets_T2, is_cut)
        found = [cell if cell and max(cell) < num_cells else None for cell in placed]
        ends = [found[n] for held in sample.relations for n in (held.subject, held.object)]
        after_T = np.arange(ids_T.size - layout.positions.size) + layout.text_position
        return EncodedSchema(
            ids_T=ids_T,
            positions_T=np.concatenate([layout.positions, after_T]).astype(np.int32),
            labels_L=np.array([0, *(start for start, _ in layout.blocks)], dtype=np.int32),
            blocks=layout.blocks,
            joined=layout.joined,
            num_kinds=len(sample.kinds),
            query_end=layout.query_end,
            num_text=num_text,
            offsets_T2=offsets_T2,
            cells=_gold_cells(sample, found, placed, num_cells),
            spans=tuple(dict.fromkeys(cell for cell in found if cell)),
            related=tuple(dict.fromkeys(cell for cell in ends if cell)),
            is_truncated=is_cut,
        )

    def count_tokens(self, encoded: EncodedSchema) -> int:
        """Return the tokens of a row."""
        return int(encoded.ids_T.size)

    def collate(self, encoded: Sequence[EncodedSchema], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch; nothing about it is random."""
        del keys
        if self.legacy_cells:
            return collate_legacy(self, encoded)
        cells = [(number, *cell) for number, row in enumerate(encoded) for cell in row.cells]
        spans = [(number, *span) for number, row in enumerate(encoded) for span in row.spans]
        gold_P4 = np.array(cells, dtype=np.int64).reshape(-1, 4)
        spans_G3 = np.array(spans, dtype=np.int64).reshape(-1, 3)
        arrays = self.collate_inputs(encoded) | {
            "gold_rows": gold_P4[:, 0],
            "gold_firsts": gold_P4[:, 1],
            "gold_lasts": gold_P4[:, 2],
            "gold_labels": gold_P4[:, 3],
        }
        if self.two_step:
            arrays |= {
                "span_rows": spans_G3[:, 0],
                "span_firsts": spans_G3[:, 1],
                "span_lasts": spans_G3[:, 2],
            }
        return RowBatch(
            arrays=arrays,
            num_targets=len(encoded),
            num_tokens=sum(row.ids_T.size for row in encoded),
        )

    def collate_inputs(self, encoded: Sequence[EncodedSchema]) -> dict[str, np.ndarray]:
        """Return what the model takes.

        Returns:
            `input_ids`, `position_ids` [B, T]; `visible` [B, T, T]; `label_positions` [B, L], 0
            (the token [CLS]) behind a row's own `label_counts` [B]; `kind_counts` [B], the kinds
            among them; `firsts` and `counts` [B], the scored tokens of each row.
        """
        input_ids_BT = pad_to([row.ids_T for row in encoded], fill=self.frame.pad)
        width = input_ids_BT.shape[1]
        visible_BTT = np.zeros((len(encoded), width, width), dtype=np.bool_)
        for number, row in enumerate(encoded):
            visible_BTT[number, : row.ids_T.size, : row.ids_T.size] = row.visible_TT
        shift = 0 if self.legacy_cells else 1
        return {
            "input_ids": input_ids_BT,
            "position_ids": pad_to([row.positions_T for row in encoded], fill=0),
            "visible": visible_BTT,
            "label_positions": pad_to([row.labels_L for row in encoded], fill=0),
            "label_counts": np.array([row.labels_L.size for row in encoded], dtype=np.int64),
            "kind_counts": np.array([row.num_kinds for row in encoded], dtype=np.int64),
            "firsts": np.array([row.query_end + shift for row in encoded], dtype=np.int64),
            "counts": np.array([row.num_text for row in encoded], dtype=np.int64),
        }

    def _find_spans(
        self,
        sample: ExtractionSample,
        tokenize: Tokenize,
        offsets_T2: Small,
        is_cut: bool,
    ) -> list[tuple[int, int] | None]:
        """Return the cell of each gold span, counted from the first scored token.

        With `legacy_cells` cells may lie beyond the row; else spans that were cut have none.
        """
        if not self.legacy_cells:
            return [
                find_cell(offsets_T2, span.start, span.end, is_cut=is_cut) for span in sample.spans
            ]
        measured = [measure_cell(sample.text, s.start, s.end, tokenize) for s in sample.spans]
        return [(first + 1, last + 1) for first, last in measured]


class _Layout:
    """What stands before the text: ids, positions and blocks."""

    def __init__(
        self, owner: UniexExtraction, sample: ExtractionSample, tokenize: Tokenize
    ) -> None:
        frame = owner.frame
        task = tokenize(sample.task).ids_T
        ids = [np.concatenate([[frame.cls], task, [frame.sep]])]
        positions = [np.arange(ids[0].size)]
        blocks: list[tuple[int, int]] = []
        place = following = ids[0].size
        groups = [(owner.kind_id, sample.kinds), (owner.predicate_id, sample.predicates)]
        for mark, names in (group for group in groups if group[1]):
            if blocks:  # the [SEP] between kinds and predicates
                ids.append(np.array([frame.sep]))
                positions.append(np.array([following]))
                place, following = place + 1, following + 1
            parts = [np.concatenate([[mark], tokenize(name).ids_T]) for name in names]
            for part in parts:
                blocks.append((place, place + part.size))
                place += part.size
            ids += parts
            positions += [np.arange(part.size) + following for part in parts]
            following += max(part.size for part in parts)
        self.ids = np.concatenate([*ids, [frame.sep]])
        self.positions = np.concatenate([*positions, [following]])
        self.blocks = tuple(blocks)
        self.query_end = place
        self.text_position: int = following + 1
        predicates = sample.predicates
        self.joined = tuple(
            (sample.kinds.index(kind), len(sample.kinds) + predicates.index(predicate))
            for head, predicate, tail in sample.schema
            for kind in (head, tail)
        )


def _gold_cells(
    sample: ExtractionSample,
    found: Sequence[tuple[int, int] | None],
    placed: Sequence[tuple[int, int] | None],
    num_cells: int,
) -> tuple[tuple[int, int, int], ...]:
    """Return the right cells: spans at slot 0 and at their kinds', both ends of a relation.

    Args:
        sample: What is right.
        found: Cells of the spans that the row holds.
        placed: The same, cells beyond the row included: the original keeps that end of a relation
            which the row still holds.
        num_cells: Cells that the row holds.
    """
    cells: list[tuple[int, int, int]] = []
    for span, cell in zip(sample.spans, found, strict=True):
        if cell:
            cells += [(*cell, INDEX_SLOT), (*cell, span.kind + 1)]
    for relation in sample.relations:
        subject, target = placed[relation.subject], placed[relation.object]
        if subject and target and relation.predicate in sample.predicates:
            slot = 1 + len(sample.kinds) + sample.predicates.index(relation.predicate)
            pairs = zip(subject, target, strict=True)
            cells += [(*pair, slot) for pair in pairs if max(pair) < num_cells]
    return tuple(dict.fromkeys(cells))


def collate_legacy(owner: UniexExtraction, encoded: Sequence[EncodedSchema]) -> RowBatch:
    """Return a batch of the original's form: cubes of whole rows, [B, T, T, L].

    Returns:
        Beside what the model takes `text_positions` [B, W] (0 fills rows), `span_labels` and
        `span_mask` (0 or -10000).
    """
    arrays = owner.collate_inputs(encoded)
    width, num_labels = arrays["input_ids"].shape[1], arrays["label_positions"].shape[1]
    labels = np.zeros((len(encoded), width, width, num_labels), dtype=np.float32)
    mask = np.full(labels.shape, MASKED, dtype=np.float32)
    texts = []
    for number, row in enumerate(encoded):
        size, own, start = row.ids_T.size, row.labels_L.size, row.query_end
        for first, last, slot in row.cells:
            labels[number, first + start, last + start, slot] = 1
        _allow(mask[number, :size, :size, :own], row, two_step=owner.two_step)
        ends = {start, *(start + place for span in row.spans for place in span)}
        every = np.arange(start, start + row.num_text)
        texts.append(np.array(sorted(ends)) if owner.two_step else every)
    arrays |= {
        "text_positions": pad_to(texts, fill=0), "span_labels": labels, "span_mask": mask,
    }  # fmt: skip
    num_tokens = sum(row.ids_T.size for row in encoded)
    return RowBatch(arrays=arrays, num_targets=len(encoded), num_tokens=num_tokens)


def _allow(mask_TTL: Floats, row: EncodedSchema, *, two_step: bool) -> None:
    """Open the cells of a row that the original scores."""
    start, predicates = row.query_end, 1 + row.num_kinds
    if not two_step:
        mask_TTL[:] = 0
        mask_TTL[:start, :start] = MASKED
        return
    mask_TTL[start:, start:, INDEX_SLOT] = 0
    for first, last in row.spans:
        mask_TTL[first + start, last + start, :predicates] = 0
    for first, last, slot in row.cells:
        if slot >= predicates:
            mask_TTL[first + start, last + start, predicates:] = 0
    for head in row.related:
        for tail in row.related:
            if head != tail:
                for first, last in zip(head, tail, strict=True):
                    mask_TTL[first + start, last + start, predicates:] = 0
