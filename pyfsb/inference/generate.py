# SPDX-License-Identifier: Apache-2.0
"""Family generate: a causal language model continues a text.

Greedy by default, so that the same prompt gives the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.data.normalizing import normalise_text
from pyfsb.inference.protocol import Generation, TextInput, as_inputs

MAX_NEW_TOKENS = 64


class Generator:
    """A causal language model."""

    family: Family = Family.GENERATE

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        max_tokens: int,
    ) -> None:
        """Keep a model in evaluation mode."""
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    @torch.inference_mode()
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Generation]:
        """Return a continuation of each text, at most 64 tokens."""
        return [self._continue(item.text) for item in as_inputs(inputs)]

    def _continue(self, text: str) -> Generation:
        encoded = self._tokenizer(normalise_text(text), add_special_tokens=False)["input_ids"]
        room = max(1, self._max_tokens - MAX_NEW_TOKENS - 1)
        begin = int(self._model.config.bos_token_id)
        prompt = torch.tensor([[begin, *encoded[-room:]]], device=self._model.device)
        output = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=min(MAX_NEW_TOKENS, self._max_tokens - prompt.shape[1]),
            do_sample=False,
            pad_token_id=int(self._model.config.pad_token_id),
            eos_token_id=int(self._model.config.eos_token_id),
        )[0, prompt.shape[1] :]
        pieces = self._tokenizer.convert_ids_to_tokens(output.tolist())
        special = set(self._tokenizer.all_special_tokens)
        return Generation(
            text=join_pieces([piece for piece in pieces if piece not in special]),
            num_tokens=len(pieces),
            is_truncated=len(encoded) > room,
        )


def join_pieces(pieces: Sequence[str]) -> str:
    """Join WordPiece pieces into Chinese text: spaces stand between two Latin words only."""
    text = ""
    for piece in pieces:
        if piece.startswith("##"):
            text += piece[2:]
        elif text and text[-1].isascii() and text[-1].isalnum() and piece[0].isascii():
            text += f" {piece}" if piece[0].isalnum() else piece
        else:
            text += piece
    return text
