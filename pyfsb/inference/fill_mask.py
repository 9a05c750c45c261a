# SPDX-License-Identifier: Apache-2.0
"""Family fill_mask: what a masked language model puts at each [MASK]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pyfsb.config import Family
from pyfsb.errors import ConfigError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.encoding import encode_rows, model_inputs, pad_rows
from pyfsb.inference.pieces import fill_text
from pyfsb.inference.protocol import Candidate, FilledMask, TextInput, as_inputs
from pyfsb.models.heads import logits_at
from pyfsb.schema import Schema

NUM_CANDIDATES = 5


class MaskFiller:
    """A masked language model."""

    family: Family = Family.FILL_MASK
    input_schema: ClassVar[type[Schema]] = TextInput

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
    def predict(self, inputs: Sequence[str | tuple[str, str] | TextInput]) -> list[FilledMask]:
        """Return the candidates for every mask of each text."""
        checked = as_inputs(inputs)
        for position, item in enumerate(checked):
            if str(self._tokenizer.mask_token) not in item.text:
                raise ConfigError(f"input {position}: no [MASK] in {item.text[:40]!r}")
        return [self._fill(item) for item in checked]

    def _fill(self, item: TextInput) -> FilledMask:
        check_deadline()
        row = encode_rows(
            self._tokenizer, [item], max_tokens=self._max_tokens, keeps_specials=True
        )[0]
        mask_id = int(self._tokenizer.convert_tokens_to_ids(str(self._tokenizer.mask_token)))
        places = [place for place, token in enumerate(row.ids) if token == mask_id]
        if not places:
            raise ConfigError(f"the [MASK] lies beyond the model's {self._max_tokens} tokens")
        tensors = model_inputs(self._model, self._tokenizer, pad_rows([row], pad_id=0))
        tensors.pop("token_type_ids", None)  # one text
        logits_PV = logits_at(
            self._model,
            tensors.pop("input_ids"),
            tensors.pop("attention_mask"),
            torch.tensor(places, device=self._model.device),
            **tensors,
        )
        best = logits_PV.float().softmax(-1).topk(NUM_CANDIDATES)
        masks = [
            tuple(
                Candidate(token=str(self._tokenizer.convert_ids_to_tokens(int(token))), score=score)
                for token, score in zip(tokens.tolist(), scores.tolist(), strict=True)
            )
            for tokens, scores in zip(
                best.indices, best.values.double().round(decimals=6), strict=True
            )
        ]
        text = fill_text(self._tokenizer, item.text, [candidates[0].token for candidates in masks])
        return FilledMask(text=text, masks=tuple(masks), is_truncated=row.is_truncated)
