# SPDX-License-Identifier: Apache-2.0
"""Seconds of a training step, from what has to be computed and moved and what a device reaches.

A sum of seven terms, each a physical quantity over a published figure of the device, times a
coefficient that is fitted once for all devices (`throughput_fit`; `tests/bench/planner.py` fits
and validates). Used by the planner; pure arithmetic, never imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyfsb.training.pools import Pool, Precision
from pyfsb.training.throughput_fit import COEFFICIENTS

TERMS: Final = ("linear", "attention", "small_heads", "vector", "logits", "communication", "hops")
"""Names of the terms, in the order of the coefficients."""
SMALL_HEAD: Final = 64
"""Heads up to this width reach less in fused attention (Dao 2023, figure 4)."""
RECOMPUTED_LINEAR: Final = 2 / 9
"""Share of a step's layers that activation checkpointing adds: a third is the forward pass, and it
stops before the last matrix, 4 of 12 h^2, whose result nobody needs (torch's early stop)."""
RECOMPUTED_ATTENTION: Final = 2 / 7
"""The same for attention: two products forward against seven in all (Dao 2023, section 3)."""
RECOMPUTED_VECTOR: Final = 1 / 3
"""The same for what is not a matrix product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one device does for one micro-batch: forward and backward, recomputation included."""

    linear_flops: float
    """Of matrix products with weights."""
    attention_flops: float
    """Of scores and values, the whole square of a causal attention counted."""
    head_size: int
    """Width of an attention head."""
    vector_elements: float
    """Tokens x layers x hidden: norms, activations, residual sums."""
    logit_elements: float
    """Predicted positions x vocabulary."""
    num_layers: int
    """Layers whose parameters are exchanged one by one."""
    device_bytes: float = 0.0
    """Bytes that collectives move to and from each device."""
    parameter_bytes: float = 0.0
    """Bytes of weights; each is read at least three times, whatever the batch."""


def term_seconds(work: Work, pool: Pool, precision: Precision, num_devices: int) -> list[float]:
    """Return the seconds of each of `TERMS` before the coefficients.

    Args:
        work: Of one micro-batch.
        pool: Where it runs.
        precision: Of the matrix products.
        num_devices: All devices together.

    Source: our choice of terms. Elementwise work is taken as bound half by memory and half by the
    rate of instructions: neither alone tells an A100-40 from an A100-80 as measured.
    """
    attention = work.attention_flops / pool.reached_attention_flops(precision)
    num_nodes = max(1.0, num_devices / pool.devices_per_node)
    linear = max(
        work.linear_flops / pool.reached_flops(precision),
        3 * work.parameter_bytes / pool.memory_bandwidth,
    )
    vector = _ELEMENT_BYTES / pool.memory_bandwidth + _ELEMENT_CYCLES / pool.issue_rate
    return [
        linear,
        attention,
        attention if work.head_size <= SMALL_HEAD else 0.0,
        work.vector_elements * vector,
        work.logit_elements * vector,
        collective_seconds(work.device_bytes, pool, num_devices),
        work.num_layers * math.log2(num_nodes) * _HOP_SECONDS,
    ]


def collective_seconds(device_bytes: float, pool: Pool, num_devices: int) -> float:
    """Return the seconds of rings over all devices at the rate of their slowest link."""
    if num_devices == 1:
        return 0.0
    inside = device_bytes * (num_devices - 1) / num_devices / pool.intra_bandwidth
    outside = device_bytes / pool.inter_bandwidth
    return max(inside, outside) if num_devices > pool.devices_per_node else inside


def step_seconds(
    work: Work,
    pool: Pool,
    precision: Precision,
    num_devices: int,
    coefficients: Sequence[float] = COEFFICIENTS,
) -> float:
    """Return the seconds of one micro-batch."""
    seconds = term_seconds(work, pool, precision, num_devices)
    return math.fsum(
        coefficient * second for coefficient, second in zip(coefficients, seconds, strict=True)
    )


_ELEMENT_BYTES: Final = 100.0
_ELEMENT_CYCLES: Final = 7.5
"""On an A100-80 both are 49 picoseconds; together the unit of the vector and logit terms."""
_HOP_SECONDS: Final = 1e-3
