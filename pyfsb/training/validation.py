# SPDX-License-Identifier: Apache-2.0
"""The loss on samples that are never trained on, and when it says that training is over.

The loop measures every so many steps; fine-tuning may measure something else through the same
protocol. What was best so far is part of the training state, so a continued run stops at the same
step as one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import nn

from pyfsb.schema import Schema
from pyfsb.training.batching import Ints, share_out
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.protocol import SampleSource, idle


class Validation(Protocol):
    """Something to measure on a model while it trains."""

    def measure(self, engine: Engine, group: ProcessGroup) -> float:
        """Return the measure, the same on all processes; lower is better."""


class BestSoFar(Schema):
    """The best measurement of a training and how long ago it was."""

    loss: float | None = None
    """None before the first one."""
    step: int = 0
    """Optimizer steps taken before it."""
    num_worse: int = 0
    """Measurements since then."""
    is_due: bool = False
    """A stop came before the measurement that was due."""

    def after(self, loss: float, step: int) -> BestSoFar:
        """Return what is best with one more measurement; a value that is no number is worse."""
        if math.isfinite(loss) and (self.loss is None or loss < self.loss):
            return BestSoFar(loss=loss, step=step)
        return self.model_copy(update={"num_worse": self.num_worse + 1, "is_due": False})

    def is_over(self, patience: int | None) -> bool:
        """Say whether training ends after so many measurements without a better one."""
        return patience is not None and self.num_worse >= patience


class HeldOutLoss:
    """Mean loss over the targets of held-out samples, all masked the same way each time."""

    def __init__(
        self, source: SampleSource, sample_ids: Ints, *, micro_tokens: int, layout: str
    ) -> None:
        """Keep what to measure on.

        Args:
            source: The samples of the training.
            sample_ids: Those held out.
            micro_tokens: Tokens of one forward pass of one process at most.
            layout: How samples lie in it.
        """
        self._source = source
        self._sample_ids = sample_ids
        self._micro_tokens = micro_tokens
        self._layout = layout

    def measure(self, engine: Engine, group: ProcessGroup) -> float:
        """Return the sum of losses over the number of targets of all processes."""
        slices = share_out(
            self._source.lengths[self._sample_ids],
            num_processes=group.size,
            micro_tokens=self._micro_tokens,
            layout=self._layout,
        )[group.rank]
        loss_sum, num_targets = 0.0, 0
        with evaluating(engine.module), torch.no_grad():
            for rows in slices:
                # All processes take part in every forward pass: under ZeRO-3 they share weights.
                sample_ids = self._sample_ids[rows if rows.size else [0]]
                batch = self._source.collate(sample_ids, np.zeros_like(sample_ids))
                if not rows.size:
                    batch = idle(batch)
                loss = engine(**{name: t.to(group.device) for name, t in batch.inputs.items()})
                if rows.size:
                    loss_sum += float(loss)
                    num_targets += batch.num_targets
        total, count = group.sum((loss_sum, num_targets))
        return total / max(1.0, count)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Turn dropout off for the length of the block."""
    module.eval()
    try:
        yield
    finally:
        module.train()
