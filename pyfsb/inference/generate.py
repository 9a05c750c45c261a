# SPDX-License-Identifier: Apache-2.0
"""Family generate: a causal language model continues a text.

Greedy by default, so that the same prompt gives the same text. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from pyfsb.config import Family
from pyfsb.data.normalizing import normalise_text
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.pieces import decode_tokens
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
        config = model.config
        begins, ends, pads = (
            _token_ids(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        )
        self._begin = begins[:1]
        self._ends = ends or None
        # One row needs no padding, but generate asks for a token; GPT-2 has none of its own.
        self._pad = next(iter([*pads, *ends]), 0)

    @torch.inference_mode()
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[Generation]:
        """Return a continuation of each text, at most 64 tokens."""
        return [self._continue(item.text) for item in as_inputs(inputs)]

    def _continue(self, text: str) -> Generation:
        encoded = self._tokenizer(normalise_text(text), add_special_tokens=False)["input_ids"]
        room = max(1, self._max_tokens - MAX_NEW_TOKENS - 1)
        prompt = torch.tensor([[*self._begin, *encoded[-room:]]], device=self._model.device)
        output = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=min(MAX_NEW_TOKENS, self._max_tokens - prompt.shape[1]),
            do_sample=False,
            pad_token_id=self._pad,
            eos_token_id=self._ends,
            stopping_criteria=StoppingCriteriaList([_goes_on]),
        )[0, prompt.shape[1] :].tolist()
        return Generation(
            text=decode_tokens(self._tokenizer, output),
            num_tokens=len(output),
            is_truncated=len(encoded) > room,
        )


def _goes_on(ids_BT: Tensor, _scores: object, **_settings: object) -> Tensor:
    """Stop no row, but all of them at the deadline: a large model takes seconds for a token."""
    check_deadline()
    return torch.zeros(len(ids_BT), dtype=torch.bool, device=ids_BT.device)


def _token_ids(config: Any, name: str) -> list[int]:
    """Return the ids of a kind of special token: a config has none, one, or a list of them."""
    value = getattr(config, name, None)
    if value is None:
        return []
    return [int(item) for item in value] if isinstance(value, list) else [int(value)]
