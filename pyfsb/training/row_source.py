# SPDX-License-Identifier: Apache-2.0
"""Samples of a row objective (UniMC, UBERT, UniEX …) as training samples.

Built by training and by fine-tuning; the loader's threads call `collate`. Never decides which
sample comes when, never reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyfsb.errors import DataError
from pyfsb.objectives.row_objective import RowObjective, SampleKey, Tokenize
from pyfsb.training.protocol import Batch

Ints = NDArray[np.int64]


class RowSource:
    """Samples, numbered as given; each is tokenised once and drawn anew in every pass."""

    def __init__(
        self,
        samples: Sequence[Any],
        objective: RowObjective[Any, Any],
        tokenize: Tokenize,
        *,
        seed: int,
        name_of: Callable[[int], str] = "sample {}".format,
    ) -> None:
        """Encode all samples.

        Args:
            samples: What the objective encodes.
            objective: Makes rows and batches.
            tokenize: From `pyfsb.models.row_objectives.make_tokenize`.
            seed: Of the objective's random choices.
            name_of: Names a sample by its number in errors.

        Raises:
            DataError: A sample does not fit the model; names it and what is too long.
        """
        self._objective = objective
        self._seed = seed
        self._encoded: list[Any] = []
        for number, sample in enumerate(samples):
            try:
                self._encoded.append(objective.encode(sample, tokenize))
            except DataError as exc:
                raise DataError(f"{name_of(number)}: {exc}") from None
        self.lengths: Ints = np.array(
            [objective.count_tokens(encoded) for encoded in self._encoded], dtype=np.int64
        )

    def collate(self, sample_ids: Ints, passes: Ints) -> Batch:
        """Return the batch of these samples, each in its pass; the same every time."""
        keys = [
            SampleKey(seed=self._seed, sample_id=sample_id, data_pass=data_pass)
            for sample_id, data_pass in zip(sample_ids.tolist(), passes.tolist(), strict=True)
        ]
        made = self._objective.collate([self._encoded[key.sample_id] for key in keys], keys)
        return Batch(
            inputs={name: torch.from_numpy(np.asarray(a)) for name, a in made.arrays.items()},
            num_targets=made.num_targets,
            num_tokens=made.num_tokens,
        )
