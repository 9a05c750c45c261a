# SPDX-License-Identifier: Apache-2.0
"""Family generate: a causal language model continues a text, or answers a prompt around it.

Greedy, so that the same prompt gives the same text. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.inference.decoding import end_ids, max_new_tokens, special_ids, stopping
from pyfsb.inference.pieces import decode_tokens
from pyfsb.inference.prompts import Prompt
from pyfsb.inference.protocol import Generation, TextInput, as_inputs
from pyfsb.models.row_objectives import find_spelling, make_tokenize
from pyfsb.objectives.row_objective import PLACE
from pyfsb.schema import Schema


class Generator:
    """A causal language model."""

    family: Family = Family.GENERATE
    input_schema: ClassVar[type[Schema]] = TextInput

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
        template: str | None = None,
        end: str | None = None,
    ) -> None:
        """Keep a model in evaluation mode.

        Args:
            model: With a head for the next token.
            tokenizer: Its own.
            name: For messages and servers.
            max_tokens: Of a prompt and its answer together.
            template: What the model reads, with {text} once; None: the config's
                `prompt_template`, else the text alone.
            end: What ends an answer besides the end token; None: the config's `prompt_end`.

        Raises:
            ConfigError: {text} does not stand in the template once, or nothing can be answered in
                so few tokens.
        """
        self.name = name
        self.prompt = Prompt.of(model.config, template=template, end=end)
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._spell, self._tokenize = find_spelling(tokenizer), make_tokenize(tokenizer)
        self._max_tokens = max_tokens
        # GPT-2's default beside a BERT vocabulary is no token of the model.
        num_tokens = model.get_input_embeddings().num_embeddings
        begins = special_ids(model.config, "bos_token_id")
        self._begin = [token for token in begins if token < num_tokens][:1]
        if max_tokens <= len(self._begin) + 1:
            raise ConfigError(f"max_tokens = {max_tokens}: too few for a prompt and an answer")
        self._ends = end_ids(model) or None
        # One row needs no padding, but generate asks for a token; GPT-2 has none of its own.
        pads = special_ids(model.config, "pad_token_id")
        self._pad = next(iter([*pads, *(self._ends or ())]), 0)
        self._max_new_tokens = max_new_tokens(model)

    @torch.inference_mode()
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Generation]:
        """Return a continuation of each text, at most 64 tokens unless the model says otherwise."""
        return [self._continue(item.text) for item in as_inputs(inputs)]

    def _continue(self, text: str) -> Generation:
        # At least half of a short model's tokens are the prompt's.
        answer = min(self._max_new_tokens, self._max_tokens // 2)
        room = max(1, self._max_tokens - answer - 1)
        encoded, is_truncated = self._encode(self._spell(text), room)
        prompt = torch.tensor([[*self._begin, *encoded]], device=self._model.device)
        length = prompt.shape[1]
        ids = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=min(self._max_new_tokens, self._max_tokens - length),
            do_sample=False,
            num_beams=1,
            pad_token_id=self._pad,
            eos_token_id=self._ends,
            stopping_criteria=stopping(
                (lambda row: self._is_done(row[length:])) if self.prompt.end else None
            ),
        )[0, length:].tolist()
        return Generation(
            text=self.prompt.trim(decode_tokens(self._tokenizer, ids)),
            num_tokens=len(ids),
            is_truncated=is_truncated,
        )

    def _encode(self, text: str, room: int) -> tuple[list[int], bool]:
        """Return the last tokens of a text, or the template with the end of the text."""
        if not self.prompt.is_plain:
            return self.prompt.fit(text, self._tokens, room, keeps_start=False)
        ids = self._tokens(text)
        return ids[-room:], len(ids) > room

    def _tokens(self, text: str, template: str = PLACE) -> list[int]:
        return [int(token) for token in self._tokenize(text, template).ids_T]

    def _is_done(self, ids: list[int]) -> bool:
        return self.prompt.find_end(decode_tokens(self._tokenizer, ids)) is not None
