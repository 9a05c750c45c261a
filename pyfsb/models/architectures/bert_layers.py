# SPDX-License-Identifier: Apache-2.0
"""Parts of a layer that several architectures have exactly as BERT has them.

Used by `zen_layers`, `longformer_model` and `zhouwenwang_model`, padded and flat: all but the
pooler take states of any leading shape. The names of submodules are those of the published
checkpoints. Never attends.

Shapes: B rows, T tokens of a row or N of documents end to end, H hidden.

Source: Devlin et al. 2019 (BERT, arXiv:1810.04805).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.activations import ACT2FN


class Inner(nn.Module):
    """The widening half of the feed-forward part."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_TH: Tensor) -> Tensor:
        """Return the inner states."""
        return self.activation(self.dense(hidden_TH))


class Output(nn.Module):
    """The end of a half layer: dense, dropout, sum, norm."""

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, changed_TH: Tensor, hidden_TH: Tensor) -> Tensor:
        """Return the normed sum of both."""
        return self.LayerNorm(self.dropout(self.dense(changed_TH)) + hidden_TH)


class Pooler(nn.Module):
    """A dense layer and tanh on the first token."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return the pooled first tokens, [B, H]."""
        return self.dense(hidden_BTH[:, 0]).tanh()
