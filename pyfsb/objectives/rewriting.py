# SPDX-License-Identifier: Apache-2.0
"""Learning to write one text from another: summaries, answers, translations, questions.

For encoder-decoders; causal models learn the same from dialogues (`sft`). The encoder reads the
text between the special tokens that its tokenizer puts around texts, so training and prediction
read the same; the decoder writes the target and its end. Pure; uses no randomness.

Shapes: B samples, N encoder tokens end to end, M decoder tokens end to end, T tokens of a text.

Source: Sutskever et al. 2014; the rows are those of the family's summary and translation examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pyfsb.errors import DataError
from pyfsb.objectives.protocol import Ints
from pyfsb.objectives.row_objective import PLACE, RowBatch, SampleKey, Small, Tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteSample:
    """A text and what is to be written from it."""

    text: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRewrite:
    """Both as tokens."""

    ids_T: Small
    """What the encoder reads, special tokens included."""
    target_T: Small
    """What the decoder writes, its end included unless it was cut."""
    is_truncated: bool
    """True: the end of one of them was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """Encodes and collates pairs of texts."""

    name: ClassVar[str] = "rewriting"

    begins: tuple[int, ...]
    """What the tokenizer puts before a text."""
    ends: tuple[int, ...]
    """What it puts behind one."""
    decoder_start: int
    """What the decoder begins with; it is not written."""
    eos: int
    """Ends what is written."""
    max_tokens: int
    """Tokens of a text at most, special tokens included; the end of a longer one is cut."""
    max_target_tokens: int
    """Tokens of what is written at most, its end included; likewise."""
    template: str = PLACE
    """What the encoder reads, with {text} once, as the config's `prompt_template`."""

    def encode(self, sample: RewriteSample, tokenize: Tokenize) -> EncodedRewrite:
        """Return the tokens of both texts.

        Raises:
            DataError: One of them has no token.
        """
        room = self.max_tokens - len(self.begins) - len(self.ends)
        head, place, tail = self.template.partition(PLACE)
        text = tokenize(sample.text, self.template).ids_T
        target = tokenize(sample.target).ids_T
        for name, ids in (("text", text), ("target", target)):
            if not ids.size:
                raise DataError(f"{name} has no token; expected some text")
        is_truncated = text.size > room or target.size >= self.max_target_tokens
        if text.size > room:  # the prompt stays whole
            behind = tokenize("", tail).ids_T if tail else text[:0]
            kept = tokenize(sample.text, head + place).ids_T[: max(0, room - behind.size)]
            text = np.concatenate([kept, behind])
        # A target that is cut does not end where it is cut.
        target = np.append(target, np.int32(self.eos))[: self.max_target_tokens]
        return EncodedRewrite(
            ids_T=np.concatenate([self.begins, text[:room], self.ends]).astype(np.int32),
            target_T=target.astype(np.int32),
            is_truncated=is_truncated,
        )

    def count_tokens(self, encoded: EncodedRewrite) -> int:
        """Return the tokens of both texts."""
        return int(encoded.ids_T.size + encoded.target_T.size)

    def collate(self, encoded: Sequence[EncodedRewrite], keys: Sequence[SampleKey]) -> RowBatch:
        """Return a training batch; nothing is drawn, so the keys do not matter."""
        del keys
        ids_N: Ints = np.concatenate([row.ids_T for row in encoded]).astype(np.int64)
        targets_M: Ints = np.concatenate([row.target_T for row in encoded]).astype(np.int64)
        target_lengths_B = np.array([row.target_T.size for row in encoded], dtype=np.int64)
        starts_B = np.cumsum(target_lengths_B) - target_lengths_B
        decoder_M = np.roll(targets_M, 1)  # each token is predicted from those before it
        decoder_M[starts_B] = self.decoder_start
        return RowBatch(
            arrays={
                "input_ids": ids_N,
                "lengths": np.array([row.ids_T.size for row in encoded], dtype=np.int64),
                "decoder_ids": decoder_M,
                "decoder_lengths": target_lengths_B,
                "target_positions": np.arange(targets_M.size),
                "target_ids": targets_M,
            },
            num_targets=int(targets_M.size),
            num_tokens=int(ids_N.size + targets_M.size),
        )
