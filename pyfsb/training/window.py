# SPDX-License-Identifier: Apache-2.0
"""The last steps of a training in figures: step times and where they went.

`meters` keeps one while it trains, `watch` builds one from metrics.jsonl. Never imports torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from pyfsb.training.metrics import StepMetrics

NUM_RECENT_STEPS: Final = 256
"""Steps that quantiles and shares are about."""


class Window:
    """The last steps; a share is of their time, saving included."""

    def __init__(self, steps: Iterable[StepMetrics] = ()) -> None:
        """Start with steps, oldest first."""
        self.steps: deque[StepMetrics] = deque(steps, maxlen=NUM_RECENT_STEPS)

    def seconds_at(self, share: float) -> float | None:
        """Return the step time that this share of the steps does not exceed (nearest rank)."""
        if not self.steps:
            return None
        seconds = sorted(metrics["seconds"] for metrics in self.steps)
        return seconds[max(0, math.ceil(share * len(seconds)) - 1)]

    @property
    def data_share(self) -> float | None:
        """Share of the time spent waiting for samples."""
        return self._share(sum(metrics.get("data_seconds", 0.0) for metrics in self.steps))

    @property
    def communication_share(self) -> float | None:
        """Share of the time spent in collectives."""
        return self._share(sum(metrics.get("communication_seconds", 0.0) for metrics in self.steps))

    @property
    def checkpoint_share(self) -> float | None:
        """Share of the time in which training stood still for a saved state."""
        return self._share(sum(metrics.get("checkpoint_seconds", 0.0) for metrics in self.steps))

    def _share(self, part: float) -> float | None:
        whole = sum(m["seconds"] + m.get("checkpoint_seconds", 0.0) for m in self.steps)
        return part / whole if whole else None
