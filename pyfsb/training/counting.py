# SPDX-License-Identifier: Apache-2.0
"""What a process's micro-batches cost, from the documents that they hold.

A document may be longer than its sample (denoising reads its text twice) or a sample may be several
(UBERT reads one row for each kind), so the batches are asked, not the corpus. Called by the loop.

Shapes: B documents, R rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from pyfsb.training.batching import StepPlanner
from pyfsb.training.flops import FlopCounter
from pyfsb.training.loader import LoadedStep
from pyfsb.training.protocol import Batch


def count_step_flops(
    counter: FlopCounter | None, loaded: LoadedStep, planner: StepPlanner, num_processes: int
) -> float:
    """Return what this process's part of a step costs; 0 without a counter.

    Args:
        counter: Of the model.
        loaded: The step.
        planner: Knows the lengths of its samples.
        num_processes: Processes that share it.
    """
    if counter is None:
        return 0.0
    found = count_flops(counter, loaded.batches)
    if found is not None:
        return found
    # Of images and their captions a share of the whole step.
    num_targets = sum(batch.num_targets for batch, _ in loaded.batches)
    lengths = planner.lengths_of(loaded.plan.sample_ids)
    return counter.count(lengths, num_targets * num_processes) / num_processes


def count_flops(counter: FlopCounter, batches: Iterable[tuple[Batch, bool]]) -> float | None:
    """Return the model FLOPs of micro-batches; those that are not real do not count.

    Returns:
        None where a batch does not tell the lengths of its documents, as images do not.
    """
    total = 0.0
    for batch, is_real in batches:
        lengths_B = document_lengths(batch.inputs)
        if lengths_B is None:
            return None
        positions, decoder_B = (
            batch.inputs.get(name) for name in ("target_positions", "decoder_lengths")
        )
        if is_real:
            # The label of a document's sentences weighs as many targets; it passes no vocabulary.
            num_predicted = batch.num_targets if positions is None else positions.numel()
            total += counter.count(
                lengths_B.numpy(),
                num_predicted,
                decoder_lengths=None if decoder_B is None else decoder_B.numpy(),
            )
    return total


def document_lengths(inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Return the tokens of each document of a batch, [B]; None where it does not tell."""
    if "lengths" in inputs:
        return inputs["lengths"]
    if "pair_weights" in inputs:  # captions with images
        return None
    if "visible" in inputs:
        return inputs["visible"].any(-1).sum(-1)
    mask_RT = inputs.get("attention_mask")
    return None if mask_RT is None else mask_RT.sum(-1).flatten()
