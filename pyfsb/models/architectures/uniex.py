# SPDX-License-Identifier: Apache-2.0
"""UniEX: BERT with a triaffine head that scores every pair of text tokens with every label.

Shapes: B rows, T tokens of a row, W scored ones, L label slots, H hidden, D width of the head.

Found by `pyfsb.models.architectures`; `pyfsb.objectives.extraction_uniex` makes the rows and
`pyfsb.models.row_losses` trains it. Never reads a file.

Source: fengshen/models/uniex of Fengshenbang-LM c8fb7b8; the state dict has the same names.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers import initialization as init
from transformers.models.bert.modeling_bert import BertPreTrainedModel
from transformers.utils import can_return_tuple

from pyfsb.config import Family
from pyfsb.models.architectures.protocol import Architecture
from pyfsb.models.architectures.ubert import BERT_KEYS, HEAD_STD, ExtractionOutput
from pyfsb.models.architectures.unimc import masked_hidden


class UniexConfig(BertConfig):
    """Shape of a UniEX."""

    model_type = "uniex"

    triaffine_hidden_size: int = 256
    """Width of the head."""
    two_step: bool = False
    """First decide which cells are spans, then of which kind they are: trained and decoded so
    (the original's fast mode). False scores all kinds of all cells."""
    legacy_cells: bool = False
    """Score and train on the cells of the original: the text begins at the [SEP] before it, so its
    last token is never scored, and losses are means over all cells, forbidden ones included."""


class Projection(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, config: UniexConfig) -> None:
        """Make one of hidden states."""
        super().__init__()
        width = config.triaffine_hidden_size
        self.mlp = nn.Sequential(nn.Linear(config.hidden_size, width), nn.GELU())

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the states in the head's width."""
        projected: Tensor = self.mlp(hidden)
        return projected


class Triaffine(nn.Module):
    """A trilinear form."""

    def __init__(self, size: int) -> None:
        """Make the form of vectors of this size."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, size, size))

    def forward(self, first_BWD: Tensor, last_BWD: Tensor, label_BLD: Tensor) -> Tensor:
        """Return the scores of all triples, [B, W, W, L]."""
        form_BLDD = torch.einsum("blo,ioj->blij", label_BLD, self.weight)
        left_BLWD = torch.einsum("bxi,blij->blxj", first_BWD, form_BLDD)
        return torch.einsum("blxj,byj->bxyl", left_BLWD, last_BWD)


class UniexPreTrainedModel(BertPreTrainedModel):
    """What the classes share."""

    config_class = UniexConfig
    base_model_prefix = "bert"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Triaffine):
            init.normal_(module.weight, mean=0.0, std=HEAD_STD)


class UniexModel(BertModel):
    """The BERT below the head."""

    config_class = UniexConfig

    def __init__(self, config: UniexConfig) -> None:
        """Build a BERT without pooler."""
        super().__init__(config, add_pooling_layer=False)


class UniexForExtraction(UniexPreTrainedModel):
    """BERT and head."""

    def __init__(self, config: UniexConfig) -> None:
        """Build both."""
        super().__init__(config)
        self.bert = UniexModel(config)
        self.mlp_start = Projection(config)
        self.mlp_end = Projection(config)
        self.mlp_cls = Projection(config)
        self.triaffine = Triaffine(config.triaffine_hidden_size)
        self.post_init()

    def encode(self, input_ids: Tensor, visible: Tensor, position_ids: Tensor) -> Tensor:
        """Return the last hidden states, [B, T, H]; `visible` is [B, T, T]."""
        return masked_hidden(self, input_ids=input_ids, visible=visible, position_ids=position_ids)

    def span_logits(self, text_BWH: Tensor, labels_BLH: Tensor) -> Tensor:
        """Return the score of each first token, last token and label, [B, W, W, L]."""
        scores_BWWL: Tensor = self.triaffine(
            self.mlp_start(text_BWH), self.mlp_end(text_BWH), self.mlp_cls(labels_BLH)
        )
        return scores_BWWL

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        visible: Tensor,
        position_ids: Tensor,
        label_positions: Tensor,
        text_positions: Tensor,
    ) -> ExtractionOutput:
        """Return the scores of cells.

        Args:
            input_ids: Ids, [B, T].
            visible: Whether the token of a row sees that of a column, [B, T, T].
            position_ids: Position of each token, [B, T].
            label_positions: Tokens of the labels, [B, L].
            text_positions: Tokens to score, [B, W].
        """
        hidden_BTH = self.encode(input_ids, visible, position_ids)
        return ExtractionOutput(
            logits=self.span_logits(
                gather_tokens(hidden_BTH, text_positions),
                gather_tokens(hidden_BTH, label_positions),
            ),
            last_hidden_state=hidden_BTH,
        )


def gather_tokens(hidden_BTH: Tensor, positions_BW: Tensor) -> Tensor:
    """Return the hidden states at positions of each row, [B, W, H]."""
    return hidden_BTH.gather(1, positions_BW[..., None].expand(-1, -1, hidden_BTH.shape[-1]))


ARCHITECTURE: Final = Architecture(
    config=UniexConfig,
    base=UniexModel,
    classes={Family.EXTRACT: UniexForExtraction},
    key_map=BERT_KEYS,
)
