# SPDX-License-Identifier: Apache-2.0
"""UniMC: options, a question and a text in one row; the [MASK] before the right option says yes.

Shapes: B samples, T tokens of a row, P predicted positions, S option slots.

    [CLS] [MASK] option 1 [MASK] option 2 … [SEP] question [SEP] text [SEP] second text [SEP]

Options do not see each other and share positions: each begins at position 1, the rest goes on
after the longest. So a list of options costs tokens but hardly positions: 119 of them fit a model
of 512 positions whole, without aliases. Pure functions; randomness is a key of integers.

Source: Yang et al. 2022 (arXiv:2210.08590) and fengshen/models/unimc of Fengshenbang-LM c8fb7b8.
What is cut is our choice: the texts, the longer one first, never an option or the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pyfsb.errors import DataError
from pyfsb.objectives.protocol import Bits, Ints
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

HIDDEN_RATES: Final = (0.0, 0.1, 0.2, 0.3)
"""Shares of a text's tokens that are predicted in training; one is drawn for each sample."""
HIDDEN_RATE_ENDS: Final = (0.3, 0.6, 0.85, 1.0)
"""Running sums of their probabilities: 0.3, 0.3, 0.25, 0.15."""
MASKED_SHARE: Final = 0.8
KEPT_SHARE: Final = 0.1
"""Of the predicted tokens; the rest becomes a random one."""
MIN_TEXT_TOKENS: Final = 16
"""Positions that options and question must leave to a text of that length (our choice)."""
MAX_ROW_TOKENS: Final = 4096
"""Tokens of a row at most: its square is computed (our choice)."""
NO_TARGET: Final = -100
_LEGACY_ROOM_TOKENS: Final = 32
_LEGACY_POSITIONS: Final = 512
_RATE, _ACTION, _REPLACEMENT = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceSample:
    """A question with options."""

    text: str
    """What the question is about."""
    options: tuple[str, ...]
    """Two or more, all different."""
    text_pair: str = ""
    """A second text; may be empty."""
    question: str = ""
    """May be empty."""
    answer: int | None = None
    """Number of the right option; None where it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChoice:
    """One row."""

    ids_T: Small
    """Token ids, [MASK] at the slots."""
    slots_S: Small
    """Where the slot of each option stands; it is followed by the option."""
    zone_end: int
    """The [SEP] after the options."""
    positions_T: Small
    """Position of each token."""
    answer: int | None
    """As in the sample."""
    is_truncated: bool
    """True: a text was cut."""

    @property
    def types_T(self) -> Ints:
        """Token types: 1 on the options and the [SEP] after them."""
        types_T = np.zeros(self.ids_T.size, dtype=np.int64)
        types_T[1 : self.zone_end + 1] = 1
        return types_T

    @property
    def visible_TT(self) -> Bits:
        """Whether the token of a row sees that of a column."""
        block_T = np.cumsum(np.isin(np.arange(self.ids_T.size), self.slots_S))
        visible_TT = np.ones((self.ids_T.size, self.ids_T.size), dtype=np.bool_)
        zone = slice(1, self.zone_end)
        visible_TT[zone, zone] = block_T[zone, None] == block_T[None, zone]
        return visible_TT


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleChoice:
    """Encodes and collates questions with options."""

    frame: FrameIds
    """Special ids."""
    yes_id: int
    """What stands at the slot of the right option."""
    no_id: int
    """What stands at the others."""
    max_positions: int
    """Positions of a row at most; with `legacy_shortening` tokens."""
    ordinary: Ints
    """Ids that a random replacement may take."""
    hides_tokens: bool = True
    """False predicts no token of the texts in training (the original: all of them)."""
    legacy_shortening: bool = False
    """Halve all options until they leave 32 tokens, even to nothing, and cut the row at its end."""
    legacy_targets: bool = False
    """Predict padding too, as token 0, and without hidden tokens every token of the row; weigh all
    targets of the batch alike."""

    def encode(self, sample: ChoiceSample, tokenize: Tokenize) -> EncodedChoice:
        """Return the row of a sample, which stays as it is.

        Raises:
            DataError: Options are empty, repeat or do not fit; names the option.
        """
        if self.legacy_shortening:
            return self._encode_legacy(sample, tokenize)
        _check_options(sample)
        options = [tokenize(option).ids_T for option in sample.options]
        question, *texts = (
            tokenize(part).ids_T for part in (sample.question, sample.text, sample.text_pair)
        )
        num_parts = sum(bool(part) for part in (sample.question, sample.text_pair)) + 1
        room = self.max_positions - 2 - max(o.size + 1 for o in options) - num_parts - question.size
        sizes = [part.size for part in texts]
        if room < min(MIN_TEXT_TOKENS, sum(sizes)):
            raise DataError(self._name_longest(sample, options, question, room))
        kept = cut_longest_first(sizes[0], sizes[1], room)
        parts = [question] if sample.question else []
        parts += [part[:size] for part, size in zip(texts, kept, strict=True)][
            : 2 if sample.text_pair else 1
        ]
        encoded = self._assemble(options, parts, sample.answer, is_truncated=sum(sizes) > room)
        if encoded.ids_T.size > MAX_ROW_TOKENS:
            raise DataError(
                f"{len(options)} options of {sum(o.size for o in options)} tokens make a row of "
                f"{encoded.ids_T.size}; at most {MAX_ROW_TOKENS} fit: shorten or split them"
            )
        return encoded

    def count_tokens(self, encoded: EncodedChoice) -> int:
        """Return the tokens of a row."""
        return int(encoded.ids_T.size)

    def collate(self, encoded: Sequence[EncodedChoice], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch.

        Raises:
            DataError: A sample has no answer.
        """
        if any(row.answer is None for row in encoded):
            raise DataError("a question to train on has no answer")
        made = [self._hide(row, key) for row, key in zip(encoded, keys, strict=True)]
        arrays = self.collate_inputs(encoded, ids=[ids_T for ids_T, _ in made])
        width = arrays["input_ids"].shape[1]
        targets_BT = pad_to([targets_T for _, targets_T in made], fill=NO_TARGET, width=width)
        if self.legacy_targets:
            for row, (ids_T, _) in zip(targets_BT, made, strict=True):
                row[ids_T.size :] = 0
        rows_P, columns_P = np.nonzero(targets_BT != NO_TARGET)
        counts_B = np.bincount(rows_P, minlength=len(encoded)).astype(np.float32)
        weights_P = 1.0 / counts_B[rows_P]
        if self.legacy_targets:
            weights_P = np.full(rows_P.size, len(encoded) / rows_P.size, dtype=np.float32)
        arrays |= {
            "target_positions": rows_P * width + columns_P,
            "target_ids": targets_BT[rows_P, columns_P],
            "target_weights": weights_P.astype(np.float32),
            "answers": np.array([row.answer for row in encoded], dtype=np.int64),
        }
        return RowBatch(
            arrays=arrays,
            num_targets=len(encoded),
            num_tokens=sum(row.ids_T.size for row in encoded),
        )

    def collate_inputs(
        self, encoded: Sequence[EncodedChoice], *, ids: Sequence[Ints] | None = None
    ) -> dict[str, np.ndarray]:
        """Return what the model takes, and where the slots are.

        Args:
            encoded: Rows.
            ids: Their tokens in place of the rows' own.

        Returns:
            `input_ids`, `token_type_ids`, `position_ids` [B, T]; `visible` [B, T, T], False in
            rows and columns of padding; `slot_positions` [B, S], row x T + column, -1 where a row
            has fewer options; `yes_id`, one number.
        """
        chosen = [row.ids_T for row in encoded] if ids is None else ids
        input_ids_BT = pad_to(chosen, fill=self.frame.pad)
        width = input_ids_BT.shape[1]
        visible_BTT = np.zeros((len(encoded), width, width), dtype=np.bool_)
        for number, row in enumerate(encoded):
            visible_BTT[number, : row.ids_T.size, : row.ids_T.size] = row.visible_TT
        slots = [row.slots_S + number * width for number, row in enumerate(encoded)]
        return {
            "input_ids": input_ids_BT,
            "token_type_ids": pad_to([row.types_T for row in encoded], fill=0),
            "position_ids": pad_to([row.positions_T for row in encoded], fill=0),
            "visible": visible_BTT,
            "slot_positions": pad_to(slots, fill=-1),
            "yes_id": np.array(self.yes_id, dtype=np.int64),
        }

    def _assemble(
        self,
        options: Sequence[Small],
        parts: Sequence[Small],
        answer: int | None,
        *,
        is_truncated: bool,
        max_tokens: int | None = None,
    ) -> EncodedChoice:
        """Lay out a row; `max_tokens` cuts it at its end, as the original does."""
        sizes = np.array([option.size + 1 for option in options])
        slots_S = 1 + np.cumsum(sizes) - sizes
        zone_end = int(1 + sizes.sum())
        pieces: list[Small | list[int]] = [[self.frame.cls]]
        for option in options:
            pieces += [[self.frame.mask], option]
        for part in parts:
            pieces += [[self.frame.sep], part]
        ids_T = np.concatenate(pieces).astype(np.int32)
        if max_tokens is not None:
            ids_T = ids_T[: max_tokens - 1]
        ids_T = np.append(ids_T, np.int32(self.frame.sep))
        places_T = np.arange(ids_T.size, dtype=np.int32)
        positions_T = places_T - zone_end + 1 + sizes.max()
        in_zone = places_T < zone_end
        starts = np.repeat(slots_S, sizes)
        positions_T[in_zone] = np.concatenate(([0], places_T[1:zone_end] - starts + 1))
        if max_tokens is not None:
            np.minimum(positions_T, _LEGACY_POSITIONS - 1, out=positions_T)
        return EncodedChoice(
            ids_T=ids_T,
            slots_S=slots_S.astype(np.int32),
            zone_end=zone_end,
            positions_T=positions_T.astype(np.int32),
            answer=answer,
            is_truncated=is_truncated,
        )

    def _encode_legacy(self, sample: ChoiceSample, tokenize: Tokenize) -> EncodedChoice:
        shortened = _halve_options(sample.options, tokenize, max_tokens=self.max_positions)
        texts = [sample.question, sample.text, sample.text_pair]
        parts = [
            tokenize(part).ids_T for place, part in enumerate(texts) if part or place == 1
        ]  # the original leaves out an empty question and second text, never the first text
        options = [tokenize(option).ids_T for option in shortened]
        num_tokens = 2 + sum(o.size + 1 for o in options) + sum(p.size + 1 for p in parts)
        return self._assemble(
            options,
            parts,
            sample.answer,
            is_truncated=num_tokens > self.max_positions,
            max_tokens=self.max_positions,
        )

    def _hide(self, row: EncodedChoice, key: SampleKey) -> tuple[Ints, Ints]:
        """Return tokens and targets of a row; the slots are always predicted."""
        ids_T = row.ids_T.astype(np.int64)
        targets_T = np.full(ids_T.size, NO_TARGET, dtype=np.int64)
        if self.hides_tokens:
            chosen_T, action_T = self._draw(row, key)
            targets_T[chosen_T] = ids_T[chosen_T]
            pick_T = uniform(
                key.seed, key.data_pass, _REPLACEMENT, key.sample_id, np.arange(ids_T.size)
            )
            other_T = self.ordinary[(pick_T * self.ordinary.size).astype(np.int64)]
            ids_T[chosen_T & (action_T < MASKED_SHARE)] = self.frame.mask
            is_other_T = chosen_T & (action_T >= MASKED_SHARE + KEPT_SHARE)
            ids_T[is_other_T] = other_T[is_other_T]
        elif self.legacy_targets:
            targets_T = ids_T.copy()
        targets_T[row.slots_S] = self.no_id
        targets_T[row.slots_S[row.answer or 0]] = self.yes_id
        return ids_T, targets_T

    def _draw(self, row: EncodedChoice, key: SampleKey) -> tuple[Bits, np.ndarray]:
        """Choose tokens after the options, special ones aside, and what becomes of each."""
        shared = (key.seed, key.data_pass)
        kind = int(
            np.searchsorted(HIDDEN_RATE_ENDS, uniform(*shared, _RATE, key.sample_id), "right")
        )
        rate = HIDDEN_RATES[kind]
        draw_T = uniform(*shared, _ACTION, key.sample_id, np.arange(row.ids_T.size))
        chosen_T = draw_T < rate
        chosen_T[: row.zone_end] = False
        chosen_T &= ~np.isin(row.ids_T, [self.frame.cls, self.frame.sep, self.frame.mask])
        return chosen_T, draw_T / rate if rate else draw_T

    def _name_longest(
        self, sample: ChoiceSample, options: Sequence[Small], question: Small, room: int
    ) -> str:
        """Say which part leaves too little room for the text."""
        longest = max(range(len(options)), key=lambda number: options[number].size)
        size, what = options[longest].size, f"option {longest} ({sample.options[longest][:20]!r})"
        if question.size > size:
            size, what = question.size, f"the question ({sample.question[:20]!r})"
        return (
            f"{what} has {size} tokens and leaves {max(0, room)} of {self.max_positions} positions "
            f"to the text; at least {MIN_TEXT_TOKENS} are needed: shorten it"
        )


def _check_options(sample: ChoiceSample) -> None:
    if len(sample.options) < 2:
        raise DataError(f"a question needs two options, here is {len(sample.options)}")
    for number, option in enumerate(sample.options):
        if not option.strip():
            raise DataError(f"option {number} ({option!r}) is empty")
        if option in sample.options[:number]:
            raise DataError(f"option {number} ({option[:20]!r}) stands twice")
    if sample.answer is not None and not 0 <= sample.answer < len(sample.options):
        raise DataError(f"answer {sample.answer} of {len(sample.options)} options")


def _halve_options(
    options: Sequence[str], tokenize: Tokenize, *, max_tokens: int
) -> tuple[str, ...]:
    """Halve all options until they fit as the original asks: 32 tokens less than the row."""
    limit = max_tokens - _LEGACY_ROOM_TOKENS
    while 1 + sum(1 + tokenize(option).ids_T.size for option in options) > limit:
        if not any(options):
            raise DataError(
                f"{len(options)} options do not fit {max_tokens} tokens even when empty"
            )
        options = [option[: len(option) // 2] for option in options]
    return tuple(options)
