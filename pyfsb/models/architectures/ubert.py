# SPDX-License-Identifier: Apache-2.0
"""UBERT: BERT with a biaffine head that scores every pair of tokens as ends of a span.

Shapes: R rows, T tokens of a row, W scored ones, H hidden, D width of the head.

Found by `pyfsb.models.architectures`; `pyfsb.models.row_losses` trains it. Never reads a file.

Source: fengshen/models/ubert of Fengshenbang-LM c8fb7b8; the state dict has the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers import initialization as init
from transformers.models.bert.modeling_bert import BertPreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from pyfsb.config import Family
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.architectures.unimc import additive_mask
from pyfsb.models.key_maps import KeyMap

HEAD_STD: Final = 0.1
"""Standard deviation of the first biaffine and triaffine weights. Source: the original."""


class UbertConfig(BertConfig):
    """Shape of a UBERT."""

    model_type = "ubert"

    biaffine_size: int = 256
    """Width of the head."""
    legacy_cells: bool = False
    """Train on the cells of the original: those of padding and below the diagonal count, samples
    without spans get a false one, and losses are means over all cells, forbidden ones included."""


@dataclass
class ExtractionOutput(ModelOutput):
    """What extraction models return."""

    logits: Tensor | None = None
    """UBERT: [R, T, T]; UniEX: [B, W, W, L]."""
    last_hidden_state: Tensor | None = None
    """[R, T, H]."""


class Biaffine(nn.Module):
    """A bilinear form of two vectors, each with a constant 1 behind it."""

    def __init__(self, size: int) -> None:
        """Make the form of vectors of this size."""
        super().__init__()
        self.U = nn.Parameter(torch.empty(size + 1, 1, size + 1))

    def forward(self, first_RWD: Tensor, last_RWD: Tensor) -> Tensor:
        """Return the scores of all pairs, [R, W, W]."""
        first_RWD = nn.functional.pad(first_RWD, (0, 1), value=1.0)
        last_RWD = nn.functional.pad(last_RWD, (0, 1), value=1.0)
        return first_RWD @ self.U[:, 0] @ last_RWD.transpose(1, 2)


class UbertPreTrainedModel(BertPreTrainedModel):
    """What the classes share."""

    config_class = UbertConfig
    base_model_prefix = "bert"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Biaffine):
            init.normal_(module.U, mean=0.0, std=HEAD_STD)


class UbertModel(BertModel):
    """The BERT below the head."""

    config_class = UbertConfig

    def __init__(self, config: UbertConfig) -> None:
        """Build a BERT without pooler."""
        super().__init__(config, add_pooling_layer=False)


class UbertForExtraction(UbertPreTrainedModel):
    """BERT and head."""

    def __init__(self, config: UbertConfig) -> None:
        """Build both."""
        super().__init__(config)
        self.bert = UbertModel(config)
        width = config.biaffine_size
        self.query_layer = nn.Sequential(nn.Linear(config.hidden_size, width), nn.GELU())
        self.key_layer = nn.Sequential(nn.Linear(config.hidden_size, width), nn.GELU())
        self.biaffine_query_key_cls = Biaffine(width)
        self.post_init()

    def encode(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the last hidden states, [R, T, H]; rows without a token are allowed."""
        hidden_RTH: Tensor = self.bert(
            input_ids=input_ids,
            attention_mask=additive_mask(attention_mask, self.dtype),
            token_type_ids=token_type_ids,
        )[0]
        return hidden_RTH

    def span_logits(self, hidden_RWH: Tensor) -> Tensor:
        """Return the score of each pair of first and last token, [R, W, W]."""
        scores_RWW: Tensor = self.biaffine_query_key_cls(
            self.query_layer(hidden_RWH), self.key_layer(hidden_RWH)
        )
        return scores_RWW

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> ExtractionOutput:
        """Return the scores of all pairs of tokens; arguments are [R, T]."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        hidden_RTH = self.encode(input_ids, attention_mask, token_type_ids)
        return ExtractionOutput(logits=self.span_logits(hidden_RTH), last_hidden_state=hidden_RTH)


BERT_KEYS: Final = KeyMap(dropped=(r"bert\.embeddings\.position_ids", r"bert\.pooler\..*"))
"""Of the heads on BERT: no output depends on these tensors."""

ARCHITECTURE: Final = Architecture(
    config=UbertConfig,
    base=UbertModel,
    classes={Family.EXTRACT: UbertForExtraction},
    key_map=BERT_KEYS,
)
