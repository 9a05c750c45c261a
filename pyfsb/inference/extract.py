# SPDX-License-Identifier: Apache-2.0
"""Family extract: a text and the kinds to look for in, spans and relations out (UBERT, UniEX).

Shapes: R rows, C kinds of a text, W tokens of a text, L label slots.

Spans of one text may overlap and lie inside of one another. A text longer than the model takes is
cut and said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.errors import ConfigError, DataError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.protocol import FoundEntity, as_list, as_schema
from pyfsb.models.architectures.uniex import gather_tokens
from pyfsb.models.row_losses import scored_tokens
from pyfsb.models.row_objectives import build_extraction_objective, make_tokenize
from pyfsb.objectives.extraction import (
    CLASSIFICATION_TASK,
    READING_TASK,
    ExtractionSample,
    Floats,
    characters_of,
    find_best_span,
    find_spans,
)
from pyfsb.objectives.extraction_ubert import EncodedKinds, KindRow, UbertExtraction
from pyfsb.objectives.extraction_uniex import EncodedSchema, UniexExtraction
from pyfsb.objectives.extraction_uniex_decoding import (
    find_groups,
    find_relations,
)
from pyfsb.schema import Schema

SPAN_THRESHOLD: Final = 0.5
"""Probability that a span must exceed. Source: the default of both originals."""
RELATION_THRESHOLD: Final = 0.5
"""Mean probability of both ends that a relation must exceed. Source: UniEX."""
BATCH_ROWS: Final = 16
"""Rows of one forward pass at most."""
DEFAULT_TASKS: Final = {"ubert": ("抽取任务", "实体识别"), "uniex": ("实体识别", "")}
"""Task and subtask of a request that names none."""
RELATION_TASK: Final = "关系抽取"


class ExtractionInput(Schema):
    """A text and what to look for."""

    text: str
    """The text."""
    kinds: tuple[str, ...] = ()
    """Entity types, questions (subtask 抽取式阅读理解) or labels (task 分类任务)."""
    relations: tuple[tuple[str, str, str], ...] = ()
    """Relations to look for: kind of the subject, predicate, kind of the object; UniEX only. Kinds
    that only they name need not be given."""
    task: str | None = None
    """Written before the kinds. None takes the model's own for entities or relations."""
    subtask: str | None = None
    """Likewise; UBERT only."""


class ScoredEntity(FoundEntity):
    """A span with its probability."""

    score: float
    """In [0, 1]."""


class FoundRelation(Schema):
    """What holds between two spans."""

    subject: ScoredEntity
    """The first span."""
    predicate: str
    """Name of the relation."""
    object: ScoredEntity
    """The second span."""
    score: float
    """Mean probability of the relation at both ends, in [0, 1]."""


class Extraction(Schema):
    """What was found in a text."""

    entities: tuple[ScoredEntity, ...] = ()
    """Spans, in the order of the text."""
    relations: tuple[FoundRelation, ...] = ()
    """Relations between them."""
    scores: dict[str, float] = {}
    """Of a classification: the probability of each kind, in [0, 1]."""
    is_truncated: bool
    """True: the end of the text was not looked at."""


class Extractor:
    """A UBERT or a UniEX."""

    family: Family = Family.EXTRACT
    input_schema: ClassVar[type[Schema]] = ExtractionInput

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
    ) -> None:
        """Keep a model in evaluation mode.

        Raises:
            ConfigError: The model is neither of the two.
        """
        self.name = name
        self._model: Any = model.eval()
        self._kind = model.config.model_type
        self._tokenize = make_tokenize(tokenizer)
        # Spans are looked for in the text alone, whatever the model was trained on.
        config = model.config.__class__.from_dict({**model.config.to_dict(), "legacy_cells": False})
        self._objective = build_extraction_objective(config, tokenizer, max_tokens=max_tokens)

    @torch.inference_mode()
    def predict(self, inputs: Sequence[ExtractionInput]) -> list[Extraction]:
        """Return what is found in each text, in their order.

        Raises:
            ConfigError: An input does not fit the model; names its position and what is wrong.
            OutOfTimeError: A deadline was set and has passed.
        """
        asked = [as_schema(item, ExtractionInput, n) for n, item in enumerate(as_list(inputs))]
        samples = [self._sample(position, item) for position, item in enumerate(asked)]
        encoded = [self._encode(position, sample) for position, sample in enumerate(samples)]
        if isinstance(self._objective, UbertExtraction):
            return self._predict_kinds(samples, encoded)
        return self._predict_schemas(samples, encoded)

    def _sample(self, position: int, item: ExtractionInput) -> ExtractionSample:
        if not item.text.strip():
            raise ConfigError(f"input {position}: the text is empty")
        if item.relations and self._kind != "uniex":
            raise ConfigError(f"input {position}: {self._kind} knows no relations; give kinds")
        task, subtask = DEFAULT_TASKS[self._kind]
        if self._kind == "uniex" and item.task == CLASSIFICATION_TASK:
            raise ConfigError(f"input {position}: uniex does not classify; take a UBERT")
        named = [kind for head, _, tail in item.relations for kind in (head, tail)]
        kinds = [*item.kinds, *(kind for kind in dict.fromkeys(named) if kind not in item.kinds)]
        return ExtractionSample(
            text=item.text,
            kinds=tuple(kinds),
            task=item.task or (RELATION_TASK if item.relations else task),
            subtask=subtask if item.subtask is None else item.subtask,
            schema=item.relations,
        )

    def _encode(self, position: int, sample: ExtractionSample) -> Any:
        try:
            return self._objective.encode(sample, self._tokenize)
        except DataError as exc:
            raise ConfigError(f"input {position}: {exc}") from None

    def _predict_kinds(
        self, samples: Sequence[ExtractionSample], encoded: Sequence[EncodedKinds]
    ) -> list[Extraction]:
        """UBERT: a row for each kind of each text; rows of different texts share a pass."""
        rows = [row for sample in encoded for row in sample.rows]
        squares: dict[int, Floats] = {}
        order = sorted(range(len(rows)), key=lambda number: rows[number].ids_T.size)
        for start in range(0, len(order), BATCH_ROWS):
            check_deadline()
            group = order[start : start + BATCH_ROWS]
            squares.update(zip(group, self._score_kinds([rows[n] for n in group]), strict=True))
        found: list[Extraction] = []
        first = 0
        for sample, own in zip(samples, encoded, strict=True):
            numbers = range(first, first + len(own.rows))
            found.append(decode_kinds(sample, own, [squares[number] for number in numbers]))
            first += len(own.rows)
        return found

    def _score_kinds(self, rows: Sequence[KindRow]) -> list[Floats]:
        """Return the probabilities of the scored cells of each row, [W, W]."""
        assert isinstance(self._objective, UbertExtraction)
        arrays = self._objective.collate_inputs(rows)
        batch = {k: torch.from_numpy(a).to(self._model.device) for k, a in arrays.items()}
        hidden_RTH = self._model.encode(
            batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
        )
        positions_RW, _ = scored_tokens(batch["firsts"], batch["counts"])
        logits_RWW = self._model.span_logits(gather_tokens(hidden_RTH, positions_RW))
        scores = logits_RWW.float().sigmoid().cpu().numpy()
        return [
            square[: row.num_scored, : row.num_scored]
            for square, row in zip(scores, rows, strict=True)
        ]

    def _predict_schemas(
        self, samples: Sequence[ExtractionSample], encoded: Sequence[EncodedSchema]
    ) -> list[Extraction]:
        """UniEX: a row for each text."""
        found: dict[int, Extraction] = {}
        order = sorted(range(len(encoded)), key=lambda number: encoded[number].ids_T.size)
        for start in range(0, len(order), BATCH_ROWS):
            check_deadline()
            group = order[start : start + BATCH_ROWS]
            cubes = self._score_schemas([encoded[number] for number in group])
            for number, cube in zip(group, cubes, strict=True):
                found[number] = decode_schema(
                    samples[number],
                    encoded[number],
                    cube,
                    two_step=self._model.config.two_step,
                )
        return [found[number] for number in range(len(encoded))]

    def _score_schemas(self, rows: Sequence[EncodedSchema]) -> list[Floats]:
        """Return the probabilities of the cells of each row, [W, W, L]."""
        assert isinstance(self._objective, UniexExtraction)
        arrays = self._objective.collate_inputs(rows)
        batch = {k: torch.from_numpy(a).to(self._model.device) for k, a in arrays.items()}
        positions_BW, _ = scored_tokens(batch["firsts"], batch["counts"])
        logits_BWWL = self._model(
            batch["input_ids"],
            batch["visible"],
            batch["position_ids"],
            batch["label_positions"],
            positions_BW,
        ).logits
        scores = logits_BWWL.float().sigmoid().cpu().numpy()
        return [
            cube[: row.num_text, : row.num_text, : row.labels_L.size]
            for cube, row in zip(scores, rows, strict=True)
        ]


def decode_kinds(
    sample: ExtractionSample, encoded: EncodedKinds, squares: Sequence[Floats]
) -> Extraction:
    """Return what UBERT found.

    Args:
        sample: Text and kinds.
        encoded: Its rows.
        squares: Probabilities of the scored cells of each kind, [W, W].
    """
    if sample.is_classification:
        scores = {
            kind: round(float(square[0, 0]), 6)
            for kind, square in zip(sample.kinds, squares, strict=True)
        }
        return Extraction(scores=scores, is_truncated=encoded.is_truncated)
    entities: list[ScoredEntity] = []
    for kind, square in zip(sample.kinds, squares, strict=True):
        if sample.subtask == READING_TASK:
            best = find_best_span(square, threshold=SPAN_THRESHOLD)
            cells = [] if best is None else [best]
        else:
            cells = find_spans(square, threshold=SPAN_THRESHOLD)
        entities += [
            _entity(sample.text, encoded.offsets_T2, first, last, kind, score)
            for first, last, score in cells
        ]
    entities.sort(key=lambda entity: (entity.start, entity.end))
    return Extraction(entities=tuple(entities), is_truncated=encoded.is_truncated)


def decode_schema(
    sample: ExtractionSample, encoded: EncodedSchema, cube: Floats, *, two_step: bool
) -> Extraction:
    """Return what UniEX found.

    Args:
        sample: Text, kinds and relations.
        encoded: Its row.
        cube: Probabilities of the cells, [W, W, L].
        two_step: Whether cells must be spans at all before their kind is asked for.
    """
    if sample.task == READING_TASK:
        answers = [
            (kind, find_best_span(cube[..., 1 + number], threshold=SPAN_THRESHOLD))
            for number, kind in enumerate(sample.kinds)
        ]
        found = [
            _entity(sample.text, encoded.offsets_T2, best[0], best[1], kind, best[2])
            for kind, best in answers
            if best is not None
        ]
        return Extraction(entities=tuple(found), is_truncated=encoded.is_truncated)
    heads, tails, others = find_groups(cube, sample, threshold=SPAN_THRESHOLD, two_step=two_step)
    entities: dict[tuple[int, int, int], ScoredEntity] = {}
    for span in (*heads, *tails, *others):
        place = (span.first, span.last, span.kind)
        entities[place] = _entity(
            sample.text, encoded.offsets_T2, *place[:2], sample.kinds[span.kind], span.score
        )
    relations = [
        FoundRelation(
            subject=entities[pair.subject.first, pair.subject.last, pair.subject.kind],
            predicate=pair.predicate,
            object=entities[pair.object.first, pair.object.last, pair.object.kind],
            score=round(pair.score, 6),
        )
        for pair in find_relations(cube, sample, heads, tails, threshold=RELATION_THRESHOLD)
    ]
    ordered = sorted(entities.values(), key=lambda entity: (entity.start, entity.end))
    return Extraction(
        entities=tuple(ordered), relations=tuple(relations), is_truncated=encoded.is_truncated
    )


def _entity(
    text: str, offsets_T2: np.ndarray, first: int, last: int, kind: str, score: float
) -> ScoredEntity:
    start, end = characters_of(offsets_T2, first, last)
    return ScoredEntity(
        start=start, end=end, type=kind, text=text[start:end], score=round(float(score), 6)
    )
