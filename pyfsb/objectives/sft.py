# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning on dialogues: a causal model learns the answers, not the questions.

Shapes: B dialogues, N tokens end to end, T tokens of a dialogue, P predicted positions.

    <begin> <human>:question ⏎ <bot>:answer <end> <human>:question ⏎ <bot>:answer <end> …

Only the tokens of answers, and the end behind each, are asked for. A dialogue that is too long
loses whole turns at its end; if its first turn alone is too long, the answer is cut, and then has
no end. Texts are taken as they are, newlines and indentation too; how they are spelled is the
rows' matter. The batch is flat, as for `causal_lm`. A row objective: see `row_objective`.

Source: the turns and the loss of Ziya-LLaMA (fengshen/examples/ziya_llama of Fengshenbang-LM
c8fb7b8), which puts all questions once more before the dialogue and cuts anywhere; the begin token
and whole turns are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pyfsb.errors import DataError
from pyfsb.objectives.protocol import Bits, Ints
from pyfsb.objectives.row_objective import RowBatch, SampleKey, Small, Tokenize

TURN: Final = "<human>:{text}\n<bot>:"
"""Ziya's: what stands before an answer, {text} for the question, of models without a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSample:
    """A dialogue."""

    turns: tuple[ChatTurn, ...]
    """One or more, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChat:
    """A dialogue as tokens."""

    ids_T: Small
    """Token ids."""
    is_answer_T: Bits
    """True on answers and their ends."""
    is_truncated: bool
    """True: turns, or the end of the only one, were cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sft:
    """Encodes and collates dialogues."""

    name: ClassVar[str] = "sft"

    eos: int
    """Ends an answer."""
    max_tokens: int
    """Tokens of a dialogue at most."""
    bos: int | None = None
    """Begins a dialogue. None: nothing does."""
    turn: str = TURN
    """What stands before an answer, as the config's `prompt_template`."""

    def encode(self, sample: ChatSample, tokenize: Tokenize) -> EncodedChat:
        """Return the tokens of a dialogue.

        Raises:
            DataError: It has no turn, or its first question leaves no room for an answer.
        """
        if not sample.turns:
            raise DataError("a dialogue without turns; expected a question and an answer at least")
        begin = [] if self.bos is None else [self.bos]
        parts, is_answer = [np.array(begin, dtype=np.int32)], [np.zeros(len(begin), np.bool_)]
        used, is_truncated = len(begin), False
        for number, turn in enumerate(sample.turns):
            asked = tokenize(turn.question, self.turn).ids_T
            written = np.append(tokenize(turn.answer).ids_T, np.int32(self.eos))
            room = self.max_tokens - used - asked.size
            if written.size > room:
                is_truncated = True
                if number:
                    break
                if room < 1:
                    raise DataError(
                        f"the first question has {asked.size} tokens; with an answer, at most "
                        f"{self.max_tokens} fit: shorten it or raise data.max_tokens"
                    )
                written = written[:room]
            parts += [asked, written]
            is_answer += [np.zeros(asked.size, np.bool_), np.ones(written.size, np.bool_)]
            used += asked.size + written.size
            if is_truncated:
                break
        return EncodedChat(
            ids_T=np.concatenate(parts).astype(np.int32),
            is_answer_T=np.concatenate(is_answer),
            is_truncated=is_truncated,
        )

    def count_tokens(self, encoded: EncodedChat) -> int:
        """Return the tokens of a dialogue."""
        return int(encoded.ids_T.size)

    def collate(self, encoded: Sequence[EncodedChat], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch; nothing is drawn, so the keys do not matter."""
        del keys
        ids_N: Ints = np.concatenate([row.ids_T for row in encoded]).astype(np.int64)
        is_answer_N = np.concatenate([row.is_answer_T for row in encoded])
        lengths_B = np.array([row.ids_T.size for row in encoded], dtype=np.int64)
        is_answer_N[np.cumsum(lengths_B) - lengths_B] = False  # nothing comes before it
        answers_P = np.flatnonzero(is_answer_N)
        return RowBatch(
            arrays={
                "input_ids": ids_N,
                "lengths": lengths_B,
                "target_positions": answers_P - 1,
                "target_ids": ids_N[answers_P],
            },
            num_targets=int(answers_P.size),
            num_tokens=int(ids_N.size),
        )
