# SPDX-License-Identifier: Apache-2.0
"""Pretraining samples: token shards through an objective into batches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pyfsb.data.shards import NUM_SPECIAL_TOKENS, Shards
from pyfsb.objectives import Objective
from pyfsb.objectives.protocol import Samples
from pyfsb.training.protocol import Batch


class CorpusSource:
    """The samples of a shard folder, masked anew in every epoch."""

    def __init__(self, shards: Shards, objective: Objective, *, seed: int) -> None:
        """Keep shards and objective.

        Args:
            shards: Token shards.
            objective: Makes inputs and targets.
            seed: Of the objective's random choices.
        """
        self._shards = shards
        self._objective = objective
        self._seed = seed
        self.lengths = shards.lengths + NUM_SPECIAL_TOKENS

    def collate(self, sample_ids: NDArray[np.int64], epoch: int) -> Batch:
        """Return the batch of these samples in this pass."""
        read = [self._shards.read(int(sample)) for sample in sample_ids]
        samples = Samples(
            ids_N=np.concatenate([ids for ids, _ in read]).astype(np.int64),
            words_N=np.concatenate([words for _, words in read]),
            lengths_B=np.array([ids.size for ids, _ in read], dtype=np.int64),
            sample_ids_B=sample_ids,
        )
        inputs = self._objective.build(samples, seed=self._seed, epoch=epoch)
        return Batch(
            inputs={
                "input_ids": torch.from_numpy(inputs.input_ids_BT),
                "attention_mask": torch.from_numpy(inputs.attention_mask_BT),
                "target_positions": torch.from_numpy(inputs.target_positions_P),
                "target_ids": torch.from_numpy(inputs.target_ids_P),
            },
            num_targets=inputs.num_targets,
            num_tokens=inputs.num_tokens,
        )
