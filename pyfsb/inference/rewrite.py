# SPDX-License-Identifier: Apache-2.0
"""Family rewrite: an encoder-decoder reads a text and writes another one.

Greedy by default, so that the same text gives the same answer. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.decoding import end_ids, max_new_tokens, special_ids, stopping
from pyfsb.inference.encoding import EncodedRow, group_by_length, pad_rows
from pyfsb.inference.pieces import decode_tokens
from pyfsb.inference.prompts import Prompt
from pyfsb.inference.protocol import TextInput, as_inputs
from pyfsb.models.row_objectives import encoder_frame, find_spelling, make_tokenize
from pyfsb.schema import Schema


class Rewriting(Schema):
    """A text that was written from another one."""

    text: str
    """What the model wrote."""
    num_tokens: int
    """Tokens of it, without the end token."""
    is_truncated: bool
    """True: the end of the text was not looked at."""
    is_complete: bool
    """True: the model ended it; False: it was cut at the most tokens of an answer."""


class Rewriter:
    """An encoder-decoder."""

    family: Family = Family.REWRITE
    input_schema: ClassVar[type[Schema]] = TextInput

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
        template: str | None = None,
        num_beams: int = 1,
    ) -> None:
        """Keep a model in evaluation mode.

        Args:
            model: With a vocabulary head, as `generate` takes it.
            tokenizer: Its own.
            name: For messages and servers.
            max_tokens: Of a text, special tokens included; an answer is never longer.
            template: What the model reads, with {text} once; None: the config's
                `prompt_template`, else the text alone.
            num_beams: Answers that are followed at the same time; 1 is greedy.

        Raises:
            ConfigError: The model is no encoder-decoder or has no token to start with, or {text}
                does not stand in the template once.
        """
        if not model.config.is_encoder_decoder:
            raise ConfigError(
                f"{name}: {model.config.model_type} is no encoder-decoder; family rewrite needs one"
            )
        start = getattr(model.generation_config, "decoder_start_token_id", None)
        if start is None and getattr(model.config, "decoder_start_token_id", None) is None:
            raise ConfigError(f"{name}: config.json names no decoder_start_token_id")
        self.name = name
        self.prompt = Prompt.of(model.config, template=template)
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._spell = find_spelling(tokenizer)
        self._tokenize = make_tokenize(tokenizer, keeps_gaps=True)
        self._max_tokens = max_tokens
        self._num_beams = num_beams
        self._ends = end_ids(model)
        self._max_new_tokens = min(max_new_tokens(model), max_tokens - 1)
        self._frame = encoder_frame(model.config, tokenizer)

    @torch.inference_mode()
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Rewriting]:
        """Return what the model writes for each text, at most 64 tokens unless it says otherwise.

        Raises:
            ConfigError: A text is empty, or there are two; names the position.
            OutOfTimeError: A deadline was set and has passed.
        """
        rows = [self._encode(item.text) for item in as_inputs(inputs)]
        answers: dict[int, Rewriting] = {}
        for numbers in group_by_length(rows):
            check_deadline()
            group = [rows[number] for number in numbers]
            answers |= zip(numbers, self._write(group), strict=True)
        return [answers[number] for number in range(len(rows))]

    def _encode(self, text: str) -> EncodedRow:
        ids, is_truncated = self.prompt.fit(
            self._spell(text), self._tokens, self._max_tokens, keeps_start=True
        )
        types = (0,) * len(ids)
        return EncodedRow(ids=tuple(ids), types=types, offsets=(), is_truncated=is_truncated)

    def _tokens(self, text: str, template: str) -> list[int]:
        """Return the tokens that the encoder reads, with the model's begin and end."""
        begins, ends = self._frame
        return [*begins, *self._tokenize(text, template).ids_T.tolist(), *ends]

    def _write(self, rows: Sequence[EncodedRow]) -> list[Rewriting]:
        pads = special_ids(self._model.config, "pad_token_id")
        batch = pad_rows(rows, pad_id=next(iter(pads), 0))
        device = self._model.device
        ids_BT = self._model.generate(
            input_ids=batch["input_ids"].to(device),
            attention_mask=batch["attention_mask"].to(device),
            max_new_tokens=self._max_new_tokens,
            num_beams=self._num_beams,
            do_sample=False,
            stopping_criteria=stopping(),
        )
        # The first column is the decoder's start token.
        return [
            self._answer(ids, row.is_truncated)
            for ids, row in zip(ids_BT[:, 1:].tolist(), rows, strict=True)
        ]

    def _answer(self, ids: list[int], is_truncated: bool) -> Rewriting:
        places = [place for place, token in enumerate(ids) if token in self._ends]
        written = ids[: places[0]] if places else ids
        return Rewriting(
            text=decode_tokens(self._tokenizer, written),
            num_tokens=len(written),
            is_truncated=is_truncated,
            is_complete=bool(places),
        )
