# SPDX-License-Identifier: Apache-2.0
"""What the training loop takes: samples by number, as batches of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One micro-batch, ready for the module."""

    inputs: Mapping[str, Tensor]
    """Arguments of the module."""
    num_targets: int
    """Targets whose losses are summed."""
    num_tokens: int
    """Tokens, padding not counted."""


class SampleSource(Protocol):
    """Where the samples of a training come from."""

    lengths: NDArray[np.int64]
    """Tokens of each sample, special tokens included."""

    def collate(self, sample_ids: NDArray[np.int64], epoch: int) -> Batch:
        """Return the batch of these samples in this pass; the same every time."""
