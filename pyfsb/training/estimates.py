# SPDX-License-Identifier: Apache-2.0
"""What one layout of a training needs and costs: memory, seconds of a step, days, money, energy.

Called by `planner`. Pure arithmetic on a model's shape, a pool's figures and the fitted throughput
model; never imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pyfsb.training.flops import FlopCounter
from pyfsb.training.layouts import Layout
from pyfsb.training.memory import LIVE_PARAMETERS, Memory, MicroBatch, count_memory
from pyfsb.training.pools import Pool
from pyfsb.training.throughput import (
    RECOMPUTED_ATTENTION,
    RECOMPUTED_LINEAR,
    RECOMPUTED_VECTOR,
    TERMS,
    Work,
    collective_seconds,
    step_seconds,
)
from pyfsb.training.throughput_fit import COEFFICIENTS

_OPTIMIZER_BYTES: Final = 75.0
"""Read and written by AdamW for each parameter: 30 of states, passed over 2.5 times (our
estimate)."""
_SCORE_ELEMENTS: Final = 0.27
"""Elementwise work of one stored attention score, in units of a hidden state's in one layer (our
estimate: 40 bytes of 150)."""
_LAUNCH_SECONDS: Final = 0.35e-3
"""For the host to start a layer's kernels, forward and backward: some sixty (our estimate). Small
micro-batches cannot be faster."""
_HOST_SHARE: Final = 0.8
"""Of a node's memory that the states may take."""
_BUCKETS_AHEAD: Final = 50_000_000.0
"""Parameters that ZeRO-2 exchanges at once: `reduce_bucket_size`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is to be trained, and how much of it."""

    counter: FlopCounter
    document_tokens: float
    """Mean tokens of a document."""
    max_tokens: int
    """Tokens of the longest one: a micro-batch holds at least one."""
    target_ratio: float
    """Predicted positions over tokens; of encoder-decoders, decoder tokens over encoder tokens."""
    step_tokens: int
    """Tokens of an optimizer step, all devices together."""
    num_tokens: float
    """Tokens of the whole training, all epochs."""
    checkpoint_every_steps: int
    num_trained: float | None = None
    """Parameters of low-rank adapters; None trains the whole model."""

    @property
    def num_exchanged(self) -> float:
        """Parameters whose gradients are exchanged and that the optimizer updates."""
        whole = float(self.counter.shape.num_parameters)
        return whole if self.num_trained is None else self.num_trained

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return max(1, math.ceil(self.num_tokens / self.step_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Stated prices and power."""

    price_per_device_hour: float | None = None
    watts_per_device: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A layout with what it needs and costs."""

    layout: Layout
    memory: Memory
    host_bytes: float
    """Of a node's memory."""
    missing_bytes: float
    """How much the device lacks; 0 or less when it fits."""
    missing_host_bytes: float
    """How much a node's memory lacks."""
    step_seconds: float
    compute_seconds: float
    """Of a step: products, elementwise work, optimizer."""
    communication_seconds: float
    """Of a step: collectives and transfers to the host."""
    checkpoint_seconds: float
    """Of a step: the stall of a checkpoint shared out."""
    tokens_per_second: float
    mfu: float
    """Model FLOPs over the peak."""
    days: float
    device_hours: float
    cost: float | None
    kwh: float | None

    @property
    def fits(self) -> bool:
        """Whether devices and nodes have the memory."""
        return self.missing_bytes <= 0 and self.missing_host_bytes <= 0


def estimate(workload: Workload, layout: Layout, pool: Pool, rates: Rates) -> Estimate:
    """Return what a layout needs and costs.

    Source: DESIGN of `throughput` for compute and collectives; DeepSpeed's exchanges by stage as
    `_exchanged_bytes` says; the stall of a checkpoint is one copy of a process's states to the
    host (the rest is written beside training).
    """
    shape = workload.counter.shape
    share = workload.step_tokens / layout.num_devices
    num_micro_steps = max(1, math.ceil(share / max(layout.micro_tokens, workload.max_tokens)))
    largest = _micro_batch(workload, max(layout.micro_tokens, workload.max_tokens))
    memory = count_memory(
        shape,
        layout.sharding,
        largest,
        is_checkpointing=layout.activation_checkpointing,
        num_trained=workload.num_trained,
    )
    # Every process builds the whole model in fp32; under ZeRO-3 the first alone does (`building`).
    num_copies = 1 if layout.zero_stage == 3 else layout.devices_per_node
    host = max(
        4.0 * shape.num_parameters * num_copies, layout.devices_per_node * memory.states.host
    )

    work = build_work(workload, layout, _micro_batch(workload, share / num_micro_steps))
    micro = step_seconds(work, pool, layout.precision, layout.num_devices)
    talking = COEFFICIENTS[TERMS.index("communication")] * collective_seconds(
        work.device_bytes, pool, layout.num_devices
    )
    launching = _LAUNCH_SECONDS * sum(stack.num_layers for stack in shape.every_stack)
    micro = max(micro, launching * (1 + layout.activation_checkpointing / 3) + talking)
    moved = _host_seconds(workload.num_exchanged, layout, pool, num_micro_steps)
    once = collective_seconds(_step_bytes(workload.num_exchanged, layout), pool, layout.num_devices)
    updating = _update_seconds(workload.num_exchanged, layout, pool)
    stall = memory.states.device / pool.host_bandwidth / workload.checkpoint_every_steps
    compute = num_micro_steps * (micro - talking) + updating
    communication = num_micro_steps * talking + once + moved
    seconds = compute + communication + stall
    hours = seconds * workload.num_steps / 3600
    device_hours = hours * layout.num_devices
    flops = workload.counter.per_token(workload.document_tokens, workload.target_ratio)
    peak = layout.num_devices * pool.peak_flops(layout.precision)
    return Estimate(
        layout=layout,
        memory=memory,
        host_bytes=host,
        missing_bytes=memory.device - pool.memory_bytes,
        missing_host_bytes=host - _HOST_SHARE * pool.host_memory_bytes,
        step_seconds=seconds,
        compute_seconds=compute,
        communication_seconds=communication,
        checkpoint_seconds=stall,
        tokens_per_second=workload.step_tokens / seconds,
        mfu=flops * workload.step_tokens / seconds / peak,
        days=hours / 24,
        device_hours=device_hours,
        cost=_times(rates.price_per_device_hour, device_hours),
        kwh=_times(rates.watts_per_device or pool.watts_per_device, device_hours / 1000),
    )


def _times(rate: float | None, amount: float) -> float | None:
    return None if rate is None else rate * amount


def build_work(workload: Workload, layout: Layout, batch: MicroBatch) -> Work:
    """Return what one device does for one micro-batch."""
    counter, shape = workload.counter, workload.counter.shape
    num_documents = batch.num_tokens / workload.document_tokens
    # FLOPs are linear in the number of equal documents, which need not be whole here.
    parts = counter.parts(
        [workload.document_tokens], workload.target_ratio * workload.document_tokens
    )
    again = layout.activation_checkpointing
    vectors = scores = 0.0
    for stack, num_tokens in zip(
        shape.stacks, (batch.num_tokens, batch.decoder_tokens), strict=False
    ):
        vectors += num_tokens * stack.num_layers * stack.hidden
        if stack.has_attention_bias:
            length = workload.document_tokens * num_tokens / max(1.0, batch.num_tokens)
            scores += num_tokens * stack.num_layers * stack.num_heads * length
    if shape.side:
        length = shape.side.count_tokens(workload.document_tokens)
        num_layers, num_tokens = shape.side.stack.num_layers, num_documents * length
        vectors += num_tokens * num_layers * shape.side.stack.hidden
        if shape.side.stack.has_attention_bias:
            scores += num_tokens * num_layers * shape.side.stack.num_heads * length
    num_parameters = shape.num_parameters
    # Frozen weights need no gradients: one of three products of each size.
    trained = 1.0 if workload.num_trained is None else 2 / 3
    linear = trained * (parts.layers + parts.head) + parts.layers * RECOMPUTED_LINEAR * again
    exchanged = num_parameters if layout.zero_stage == 3 else workload.num_exchanged
    return Work(
        linear_flops=num_documents * linear,
        attention_flops=num_documents * parts.attention * (1 + RECOMPUTED_ATTENTION * again),
        head_size=shape.body.width // shape.body.num_heads,
        vector_elements=(vectors + _SCORE_ELEMENTS * scores) * (1 + RECOMPUTED_VECTOR * again),
        logit_elements=batch.num_targets * shape.vocabulary * shape.has_vocabulary_head,
        num_layers=_num_exchanges(workload, layout),
        device_bytes=_exchanged_bytes(exchanged, layout),
        parameter_bytes=num_parameters * layout.sharding.element_bytes,
    )


def _micro_batch(workload: Workload, num_tokens: float) -> MicroBatch:
    targets = workload.target_ratio * num_tokens
    return MicroBatch(
        num_tokens=num_tokens,
        num_targets=targets,
        document_tokens=workload.document_tokens,
        decoder_tokens=targets if workload.counter.shape.decoder else 0.0,
    )


def _num_exchanges(workload: Workload, layout: Layout) -> int:
    """Return how often a micro-batch waits for the collectives of all nodes."""
    if layout.zero_stage == 3:
        return sum(stack.num_layers for stack in workload.counter.shape.every_stack)
    if layout.zero_stage == 2:
        return math.ceil(workload.counter.shape.num_parameters / _BUCKETS_AHEAD)
    return 0


def _exchanged_bytes(num_parameters: float, layout: Layout) -> float:
    """Return the bytes that each micro-batch's collectives move to and from a device.

    ZeRO-2 adds up each micro-batch's gradients where their shard is; ZeRO-3 gathers parameters
    for forward and, when they are too many to stay, again for backward.
    """
    width = layout.sharding.element_bytes
    if layout.zero_stage < 2:
        return 0.0
    if layout.zero_stage == 2:
        return width * num_parameters
    num_gathers = 1 if num_parameters <= LIVE_PARAMETERS else 2
    return (num_gathers + 1) * width * num_parameters


def _step_bytes(num_parameters: float, layout: Layout) -> float:
    """Return the bytes that collectives move once an optimizer step: gradients, then weights."""
    width = layout.sharding.element_bytes
    if layout.zero_stage == 0:
        return 2 * 4 * num_parameters
    if layout.zero_stage == 1:
        return (
            2 * 4 if layout.precision == "bf16" else 4
        ) * num_parameters + width * num_parameters
    return width * num_parameters if layout.zero_stage == 2 else 0.0


def _update_seconds(num_parameters: float, layout: Layout, pool: Pool) -> float:
    """Return the seconds of AdamW on this process's shard."""
    shard = num_parameters / (layout.num_devices if layout.zero_stage else 1)
    if layout.offload_optimizer:
        return _OPTIMIZER_BYTES * shard * layout.devices_per_node / pool.host_memory_bandwidth
    return _OPTIMIZER_BYTES * shard / pool.memory_bandwidth


def _host_seconds(num_parameters: float, layout: Layout, pool: Pool, num_micro_steps: int) -> float:
    """Return the seconds of a step for moving gradients and parameters to the host and back."""
    shard = num_parameters / layout.num_devices
    num_bytes = 0.0
    if layout.offload_optimizer:
        num_bytes += shard * (4 * num_micro_steps + layout.sharding.element_bytes)
    if layout.offload_parameters:
        num_bytes += 2 * num_micro_steps * shard * layout.sharding.element_bytes
    return num_bytes / pool.host_bandwidth
