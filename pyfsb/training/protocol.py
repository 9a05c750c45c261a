# SPDX-License-Identifier: Apache-2.0
"""What the training loop takes: samples by number, as flat batches of tensors.

Shapes: B documents, N tokens of all documents end to end, P predicted positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyfsb.training.batching import Lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One micro-batch, ready for the module."""

    inputs: Mapping[str, Tensor]
    """Arguments of the module: `input_ids` [N] and `lengths` [B], `target_ids`, and by family
    `target_positions` [P] (indices into N) and `token_type_ids` [N]."""
    num_targets: int
    """Targets whose losses are summed."""
    num_tokens: int
    """Tokens of the documents: N, without what a layout adds."""


def idle(batch: Batch) -> Batch:
    """Return a batch that is computed and counts as nothing, beside the others' real ones.

    Pairs are compared with those of other processes: theirs must not see these.
    """
    inputs = dict(batch.inputs)
    if "pair_weights" in inputs:
        inputs["pair_weights"] = torch.zeros_like(inputs["pair_weights"])
    return Batch(inputs=inputs, num_targets=0, num_tokens=0)


class SampleSource(Protocol):
    """Where the samples of a training come from."""

    @property
    def lengths(self) -> Lengths:
        """Tokens of each sample, special tokens included."""

    def collate(self, sample_ids: NDArray[np.int64], passes: NDArray[np.int64]) -> Batch:
        """Return the batch of these samples, each in its pass; the same every time."""
