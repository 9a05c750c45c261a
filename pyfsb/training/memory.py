# SPDX-License-Identifier: Apache-2.0
"""Bytes of a training process on its device and on its host, before anything is built.

Model states by ZeRO stage as DeepSpeed 0.19 lays them out under the settings of `config`, and the
activations of the flat forward (`pyfsb.models.unpadded`) with the head on predicted positions. What
a layer keeps is counted from its module's operations; tests compare it with torch's memory
tracker, `tests/bench/planner.py` over more models. Called by the planner; never imports torch.

Shapes in comments: N tokens, P targets, T tokens of a document, V vocabulary, h hidden, i inner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pyfsb.training.pools import Precision
from pyfsb.training.shapes import ModelShape, Stack

REDUCE_BUCKET_ELEMENTS: Final = 50_000_000
"""`reduce_bucket_size` of `pyfsb.training.config`."""
LIVE_PARAMETERS: Final = 1_000_000_000
"""DeepSpeed's default `stage3_max_live_parameters`: gathered at once under ZeRO-3, at most."""
PREFETCH_ELEMENTS: Final = 50_000_000
"""DeepSpeed's default `stage3_prefetch_bucket_size`."""
CONTEXT_BYTES: Final = 1.5e9
"""Device context, kernels and buffers of the collectives (our estimate)."""
FRAGMENTATION_RATIO: Final = 0.05
"""What the caching allocator loses (our estimate)."""
_MIN_BLOCK_TOKENS: Final = 64
"""Queries of a block of windowed attention, at least (`longformer_attention`)."""
_INNER_TENSORS: Final = {"gelu": 2, "relu": 1, "gelu_new": 5, "quick_gelu": 3, "silu": 2, "tanh": 2}
_GATED_TENSORS: Final = {"gelu": 7, "gelu_new": 7, "silu": 4, "relu": 3}
"""Tensors of inner width that the feed-forward part keeps; T5's gated gelu is `gelu_new`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """How DeepSpeed spreads a model's states."""

    zero_stage: int
    offloads_optimizer: bool
    offloads_parameters: bool
    precision: Precision
    num_devices: int
    devices_per_node: int

    @property
    def element_bytes(self) -> int:
        """Bytes of a number in forward and backward."""
        return 4 if self.precision == "fp32" else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward pass of one device."""

    num_tokens: float
    num_targets: float
    document_tokens: float
    decoder_tokens: float = 0.0
    """Of the second stack of encoder-decoders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """Bytes of a process's model states."""

    parameters: float
    gradients: float
    optimizer: float
    host: float
    """In the host's memory, of this process."""

    @property
    def device(self) -> float:
        """All on the device."""
        return self.parameters + self.gradients + self.optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of a process at its peak."""

    states: States
    buffers: float
    """Buckets of the collectives, and what ZeRO-3 gathers."""
    activations: float
    """What forward keeps for backward, and what backward holds beside it at the peak."""
    overhead: float
    """Context and fragmentation."""

    @property
    def device(self) -> float:
        """All on the device."""
        return self.states.device + self.buffers + self.activations + self.overhead


def count_states(num_parameters: float, sharding: Sharding, *, num_frozen: float = 0.0) -> States:
    """Return the bytes of parameters, gradients and optimizer of one process.

    fp32 weights and moments are 12 bytes a parameter, gradients add up in fp32 (4 more). ZeRO-1 in
    bfloat16 keeps those gradients whole (DeepSpeed's BF16_Optimizer); ZeRO-2 and 3 shard them.

    Args:
        num_parameters: Trained ones.
        sharding: How they are spread.
        num_frozen: Parameters beside them that need no gradient.

    Source: measured on our engine (tests/unit/training/test_memory.py); ZeRO-3 is DeepSpeed's own
    `estimate_zero3_model_states_mem_needs`, ZeRO-2 theirs less a 16-bit gradient shard that is
    freed at once.
    """
    shard = num_parameters / sharding.num_devices
    stage, width = sharding.zero_stage, sharding.element_bytes
    if stage == 0:
        return States(
            parameters=4 * (num_parameters + num_frozen),
            gradients=4 * num_parameters,
            optimizer=8 * num_parameters,
            host=0.0,
        )
    every = num_parameters + num_frozen
    parameters = width * (every / sharding.num_devices if stage == 3 else every)
    gradients = 4 * (num_parameters if stage == 1 else shard)
    optimizer, host = 12 * shard, 0.0
    if sharding.offloads_optimizer:
        # Weights, moments, gradients, and gradients in pinned memory on their way.
        host = 20 * shard
        gradients = 4 * num_parameters if stage == 1 else 0.0
        optimizer = 0.0
    if sharding.offloads_parameters:
        host += parameters
        parameters = 0.0
    return States(parameters=parameters, gradients=gradients, optimizer=optimizer, host=host)


def count_memory(
    shape: ModelShape,
    sharding: Sharding,
    batch: MicroBatch,
    *,
    is_checkpointing: bool,
    num_trained: float | None = None,
) -> Memory:
    """Return the bytes of one process at its peak.

    Args:
        shape: The model.
        sharding: How its states are spread.
        batch: What goes through it at once.
        is_checkpointing: Only the inputs of layers are kept, the rest is computed again.
        num_trained: Parameters of adapters, beside the frozen model. None trains all.
    """
    num_parameters = shape.num_parameters
    if num_trained is None:
        states = count_states(num_parameters, sharding)
    else:
        states = count_states(num_trained, sharding, num_frozen=num_parameters)
    buffers = 0.0
    is_bf16_1 = sharding.zero_stage == 1 and sharding.precision == "bf16"
    if sharding.zero_stage and not is_bf16_1:
        buffers += REDUCE_BUCKET_ELEMENTS * sharding.element_bytes
    if sharding.zero_stage in (1, 2) and sharding.offloads_optimizer:
        buffers += 2 * shape.largest_parameter * sharding.element_bytes
    if sharding.zero_stage == 3 and sharding.num_devices > 1:
        layer = max(stack.layer_parameters for stack in shape.every_stack)
        live = max(LIVE_PARAMETERS, 2 * layer) + PREFETCH_ELEMENTS
        buffers += min(live, num_parameters) * sharding.element_bytes
    activations = count_activations(
        shape,
        batch,
        element_bytes=sharding.element_bytes,
        is_checkpointing=is_checkpointing,
        is_autocast=sharding.zero_stage == 0 and sharding.precision != "fp32",
    )
    used = states.device + buffers + activations
    return Memory(
        states=states,
        buffers=buffers,
        activations=activations,
        overhead=CONTEXT_BYTES + FRAGMENTATION_RATIO * used,
    )


def count_activations(
    shape: ModelShape,
    batch: MicroBatch,
    *,
    element_bytes: int,
    is_checkpointing: bool,
    is_autocast: bool = False,
) -> float:
    """Return the bytes that forward and backward add at their peak to the model states.

    The peak is the largest of these moments: the loss, when logits and probabilities live; the
    first backward through a layer; with two stacks, that of the first one.

    Args:
        shape: The model.
        batch: What goes through it at once.
        element_bytes: Of a hidden state.
        is_checkpointing: Only the inputs of layers are kept.
        is_autocast: Weights are fp32 and cast for each product: the casts are kept, and residual
            sums and norms are fp32.
    """
    tokens = (batch.num_tokens, batch.decoder_tokens)
    kept, moments = _side_bytes(shape, batch, element_bytes, is_checkpointing), []
    waiting = float(shape.vocabulary * shape.body.hidden * element_bytes)
    if not (shape.has_vocabulary_head and shape.has_tied_head):
        waiting = 0.0  # else the head's gradient of the matrix waits for that of the embedding
    for stack, num_tokens in zip(shape.stacks, tokens, strict=False):
        states = stack.hidden * num_tokens * element_bytes
        layer = _layer_bytes(shape, stack, batch, num_tokens, element_bytes)
        backward = max(
            _backward_bytes(stack, num_tokens, element_bytes, is_again=is_checkpointing),
            _score_backward_bytes(stack, batch, num_tokens, element_bytes),
        )
        again = layer if is_checkpointing else 0.0
        kept += (stack.num_layers - 1) * (states if is_checkpointing else layer)
        kept += stack.num_stem_tensors * states
        if stack.has_rms_norm and element_bytes < 4:
            kept += 4 * stack.hidden * num_tokens  # of the norm behind the last layer
        final = layer
        if len(shape.stacks) == 1 and shape.has_vocabulary_head and shape.is_flat:
            # The last layer goes on with predicted positions; the one before is a moment too.
            moments.append(kept + waiting + backward + again)
            final, backward = _last_layer_bytes(
                stack, batch, layer=layer, backward=backward, element_bytes=element_bytes
            )
            again = final if is_checkpointing else 0.0
        kept += states if is_checkpointing else final
        # What stands behind the first of two stacks is gone when its layers' turn comes.
        behind = (3 if stack.has_rms_norm else 1) * states * (stack is not shape.stacks[-1])
        moments.append(kept - behind + waiting + backward + again)
    last, num_tokens = shape.stacks[-1], tokens[len(shape.stacks) - 1]
    head = shape.num_head_tensors * batch.num_targets
    head += num_tokens if shape.decoder else batch.num_targets
    # Scores and probabilities in fp32; 16-bit scores come on top.
    score_bytes = 8 if element_bytes == 4 else 8 + element_bytes
    logits = score_bytes * batch.num_targets * shape.vocabulary * shape.has_vocabulary_head
    moments.append(kept + head * last.hidden * element_bytes + logits)
    peak = max(moments)
    return _AUTOCAST_FACTOR * peak + 2 * shape.num_parameters if is_autocast else peak


def _side_bytes(
    shape: ModelShape, batch: MicroBatch, element_bytes: int, is_checkpointing: bool
) -> float:
    """Return what a further encoder keeps; its backward pass comes when the body's is half done."""
    if shape.side is None:
        return 0.0
    stack, num_documents = shape.side.stack, batch.num_tokens / batch.document_tokens
    length = shape.side.count_tokens(batch.document_tokens)
    num_tokens = num_documents * length
    alone = replace(batch, num_tokens=num_tokens, document_tokens=length)
    states = stack.hidden * num_tokens * element_bytes
    layer = _layer_bytes(shape, stack, alone, num_tokens, element_bytes)
    added = batch.num_tokens * length * shape.side.num_additions * element_bytes
    kept = stack.num_layers * (states if is_checkpointing else layer)
    return kept + stack.num_stem_tensors * states + (0.0 if is_checkpointing else added)


def _last_layer_bytes(
    stack: Stack, batch: MicroBatch, *, layer: float, backward: float, element_bytes: int
) -> tuple[float, float]:
    """Return what a last layer keeps, and its backward pass, that goes on with targets alone.

    Args:
        stack: The only one.
        batch: What goes through it.
        layer: What a layer keeps that goes on with all tokens.
        backward: What the backward pass of such a layer holds.
        element_bytes: Of a hidden state.
    """
    share = min(1.0, batch.num_targets / batch.num_tokens)
    states = stack.hidden * batch.num_tokens * element_bytes
    own = (2 * stack.width + 2 * stack.kv_width) * batch.num_tokens * element_bytes
    wide = own + states * stack.norms_first
    if stack.has_attention_bias:
        wide += _score_bytes(stack, batch.num_tokens, batch.document_tokens, element_bytes)
    kept = wide + share * (layer - wide + 2 * states * (share < 1))
    if share == 1:
        return kept, backward
    gradients = own + states * (1 + stack.norms_first)
    gradients += _score_gradient_bytes(stack, batch.num_tokens, batch.document_tokens)
    return kept, max(share * backward, gradients - share * (layer - wide))


_AUTOCAST_FACTOR: Final = 1.5
"""Norms and residual sums in fp32 beside 16-bit products (our estimate)."""


def _layer_bytes(
    shape: ModelShape, stack: Stack, batch: MicroBatch, num_tokens: float, element_bytes: int
) -> float:
    """Return what one layer keeps for its backward pass."""
    num_norms = 3 if stack.has_cross_attention else 2
    # A LayerNorm keeps its input and its result; the fp32 norm its scaled input too.
    hidden = (3 if stack.has_rms_norm else 2) * num_norms * stack.hidden
    own = 2 * stack.width + 2 * stack.kv_width  # queries, keys, values, result
    inner = _inner_tensors(stack) * stack.intermediate
    elements = num_tokens * (hidden + own + inner + num_norms * 2)
    length = batch.document_tokens
    if stack.has_cross_attention:
        elements += 2 * stack.width * (num_tokens + batch.num_tokens)
        length *= num_tokens / batch.num_tokens
    kept = elements * element_bytes + _score_bytes(stack, num_tokens, length, element_bytes)
    if stack.has_rms_norm and element_bytes < 4:
        kept += 4 * num_norms * stack.hidden * num_tokens
    if shape.has_dropout:
        masks = num_norms * stack.hidden + stack.has_rms_norm * stack.intermediate
        kept += num_tokens * masks
    return kept


def _score_bytes(stack: Stack, num_tokens: float, length: float, element_bytes: int) -> float:
    """Return what attention keeps beside queries, keys, values and result."""
    if not stack.has_attention_bias:
        denominators = 4 * stack.num_heads * num_tokens  # of the softmax
        return denominators + _window_bytes(stack, num_tokens, length, element_bytes)
    # Probabilities, and queries, keys and values in fp32 instead of 16 bits.
    kept = 4 * num_tokens * stack.num_heads * length
    kept += (4 - element_bytes) * num_tokens * 3 * stack.width
    # For each term of DeBERTa, positions as every document sees them (2 T - 1 for its T tokens),
    # and queries or keys once more, laid out for the product with them.
    terms = stack.num_relative_terms * stack.width * element_bytes
    return kept + num_tokens * terms * ((2 * length - 1) / length + 1)


def _window_bytes(stack: Stack, num_tokens: float, length: float, element_bytes: int) -> float:
    """Return what the blocks of windows keep, the mean of all layers.

    Queries, keys and values are copied into blocks whose keys overlap, and each query has a mask.
    """
    total = 0.0
    for reach in stack.reaches:
        if length > reach + 1:
            block = max(reach, _MIN_BLOCK_TOKENS)
            seen = block + 2 * reach
            total += stack.width * (1 + 2 * seen / block) * element_bytes
            total += seen * (1 + element_bytes)
    return num_tokens * total / max(1, len(stack.reaches))


def _score_backward_bytes(
    stack: Stack, batch: MicroBatch, num_tokens: float, element_bytes: int
) -> float:
    """Return what the backward pass through stored scores holds, the feed-forward part gone."""
    if not stack.has_attention_bias:
        return 0.0
    length = batch.document_tokens
    if stack.has_cross_attention:
        length *= num_tokens / batch.num_tokens
    gone = _inner_tensors(stack) * stack.intermediate + 2 * stack.hidden
    own = 2 * stack.width + 2 * stack.kv_width + stack.hidden
    held = _score_gradient_bytes(stack, num_tokens, length)
    return held + (own - gone) * num_tokens * element_bytes


def _score_gradient_bytes(stack: Stack, num_tokens: float, length: float) -> float:
    """Return the bytes of stored scores' gradients, fp32; DeBERTa's terms have some too."""
    if not stack.has_attention_bias:
        return 0.0
    return (1 + (stack.num_relative_terms > 0)) * 4 * num_tokens * stack.num_heads * length


def _inner_tensors(stack: Stack) -> int:
    is_gated = stack.num_feedforward_matrices == 3
    return (_GATED_TENSORS if is_gated else _INNER_TENSORS).get(stack.activation, 5)


def _backward_bytes(
    stack: Stack, num_tokens: float, element_bytes: int, *, is_again: bool
) -> float:
    """Return what the backward pass through the feed-forward part of a layer holds at its peak."""
    inner, hidden = num_tokens * stack.intermediate, num_tokens * stack.hidden
    if stack.has_rms_norm:
        return element_bytes * (2 * inner - (0 if is_again else 2 * hidden))
    if stack.activation == "gelu":
        weights = stack.hidden * stack.intermediate
        return element_bytes * (inner + weights - (hidden if is_again else 0))
    return element_bytes * (2 * inner - (hidden if is_again else 0))
