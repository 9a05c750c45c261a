# SPDX-License-Identifier: Apache-2.0
"""The training state that lies in this process: fp32 weights and AdamW's moments, as views.

DeepSpeed keeps them in flat buffers that differ by ZeRO stage and precision; this file alone knows
where. Each trainable parameter's part that this process holds is a `Fragment` of views, so state
is read and set in place and without communication. Frozen parameters are no part of the state.
Called by the engine, by `checkpoint` and by `restoring`; never touches a file.

Source: DeepSpeed 0.19, `utils/tensor_fragment.py` and `runtime/zero`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import torch
from torch import Tensor, distributed, nn

from pyfsb.training.scalars import drop_axis
from pyfsb.training.sharding import Piece, flat_share

MOMENTS: Final = ("exp_avg", "exp_avg_sq")
"""AdamW's state of each parameter."""


class ShardedEngine(Protocol):
    """What this file needs of the engine."""

    @property
    def stage(self) -> int:
        """ZeRO stage."""

    @property
    def module(self) -> nn.Module:
        """The module; under ZeRO-3 its parameters are empty between steps."""

    @property
    def zero_optimizer(self) -> Any:
        """What DeepSpeed made of the optimizer."""

    @property
    def base_optimizer(self) -> torch.optim.Optimizer:
        """Torch's optimizer within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """The part of one parameter's state that lies in this process; all tensors are flat views."""

    name: str
    """Name of the parameter in the module."""
    shape: tuple[int, ...]
    """Shape of the whole parameter."""
    start: int
    """First element, counted in the flattened parameter."""
    weight: Tensor
    """fp32 value, [numel]."""
    exp_avg: Tensor
    """First moment, [numel]."""
    exp_avg_sq: Tensor
    """Second moment, [numel]."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.weight.numel()

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight and both moments, in the order of `sharding.KINDS`."""
        return self.weight, self.exp_avg, self.exp_avg_sq

    @property
    def piece(self) -> Piece:
        """Which part of which parameter it is."""
        return Piece(name=self.name, shape=self.shape, start=self.start, numel=self.numel)


def trainable_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the whole shape of each trainable parameter, also of those that ZeRO-3 emptied."""
    return {
        name: tuple(getattr(parameter, "ds_shape", parameter.shape))
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def held_fragments(engine: ShardedEngine) -> list[Fragment]:
    """Return what this process holds, in the order of the module's parameters.

    Without ZeRO that is every parameter as a whole, on every process.
    """
    parameters = [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]
    if engine.stage == 0:
        return _replicated(engine, parameters)
    find = _zero_3 if engine.stage == 3 else _zero_1_and_2
    found = (find(engine, name, parameter) for name, parameter in parameters)
    return [fragment for fragment in found if fragment is not None]


def owned_fragments(engine: ShardedEngine, *, rank: int, size: int) -> list[Fragment]:
    """Return what this process is to save: over all processes, everything once.

    Args:
        engine: The engine.
        rank: Number of this process.
        size: Number of processes.
    """
    held = held_fragments(engine)
    if engine.stage > 0 or size == 1:
        return held
    share = flat_share([fragment.numel for fragment in held], rank=rank, size=size)
    return [_narrow(held[number], start, numel) for number, start, numel in share]


def exchange_shares(engine: ShardedEngine, *, size: int) -> None:
    """Give all processes what each of them owns, where all hold everything.

    Args:
        engine: The engine; its owned fragments are right, the others may not be.
        size: Number of processes.
    """
    if engine.stage > 0 or size == 1:
        return
    held = held_fragments(engine)
    numels = [fragment.numel for fragment in held]
    for rank in range(size):
        for number, start, numel in flat_share(numels, rank=rank, size=size):
            for tensor in held[number].tensors:
                distributed.broadcast(tensor.narrow(0, start, numel), src=rank)


def initialize_moments(engine: ShardedEngine) -> None:
    """Give every (shard of a) parameter moments of zero before the first step.

    DeepSpeed links the moments of all groups to their parameters after the first group's first
    step, when those of the other groups do not exist yet; afterwards they cannot be read.
    """
    optimizer = engine.base_optimizer
    for group in optimizer.param_groups:
        on_device = bool(group.get("fused") or group.get("capturable"))
        for tensor in _optimized_tensors(engine, group):
            device = tensor.device if on_device else "cpu"
            optimizer.state[tensor] = {
                "step": torch.tensor(0.0, device=device),
                **{moment: torch.zeros_like(tensor) for moment in MOMENTS},
            }
    if engine.stage in (1, 2):
        engine.zero_optimizer._lazy_init_hp_params_optimizer_state()


def optimizer_steps(engine: ShardedEngine) -> int:
    """Return the steps that the moments have seen: those left out do not count."""
    states = engine.base_optimizer.state.values()
    return max((int(state["step"]) for state in states), default=0)


def finish_restore(engine: ShardedEngine, *, num_steps: int) -> None:
    """Make an engine whose fragments were set go on from them; all processes take part.

    Args:
        engine: The engine; its weights for the forward pass are made from the fp32 ones.
        num_steps: Steps that the moments have seen.
    """
    for state in engine.base_optimizer.state.values():
        if isinstance(state["step"], Tensor):
            state["step"].fill_(float(num_steps))
        else:
            state["step"] = num_steps
    with torch.no_grad():
        if engine.stage == 3:
            _publish_zero_3(engine.zero_optimizer)
        elif engine.stage:
            engine.zero_optimizer.update_lp_params()
        else:
            for parameter, master in _masters(engine).items():
                if master is not parameter:
                    parameter.data.copy_(master.data)


def named_weights(engine: ShardedEngine) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter's name and full fp32 value on the host, one at a time.

    All processes take part. Frozen parameters are yielded as they are.
    """
    held = {fragment.name: fragment for fragment in held_fragments(engine)}
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            whole = _whole_frozen(parameter)
        elif engine.stage == 0:
            fragment = held[name]
            whole = fragment.weight.detach().reshape(fragment.shape).cpu()
        else:
            whole = _gather(parameter, held.get(name))
        yield name, drop_axis(engine.module, name, whole)


def _gather(parameter: nn.Parameter, fragment: Fragment | None) -> Tensor:
    """Return a sharded parameter's fp32 value: each process adds its part to zeros."""
    from deepspeed.accelerator import get_accelerator

    shape = torch.Size(getattr(parameter, "ds_shape", parameter.shape))
    device = get_accelerator().current_device_name()  # shards may be offloaded to the host
    whole = torch.zeros(shape.numel(), dtype=torch.float32, device=device)
    if fragment is not None:
        whole[fragment.start : fragment.start + fragment.numel].copy_(fragment.weight)
    if distributed.get_world_size() > 1:
        distributed.all_reduce(whole)
    return whole.reshape(shape).cpu()


def _whole_frozen(parameter: nn.Parameter) -> Tensor:
    if not hasattr(parameter, "ds_id"):
        return parameter.detach().float().cpu()
    from deepspeed import zero

    with zero.GatheredParameters([parameter]):
        return parameter.detach().float().cpu().clone()


def _narrow(fragment: Fragment, start: int, numel: int) -> Fragment:
    weight, exp_avg, exp_avg_sq = (tensor.narrow(0, start, numel) for tensor in fragment.tensors)
    return replace(
        fragment,
        start=fragment.start + start,
        weight=weight,
        exp_avg=exp_avg,
        exp_avg_sq=exp_avg_sq,
    )


def _replicated(
    engine: ShardedEngine, parameters: Sequence[tuple[str, nn.Parameter]]
) -> list[Fragment]:
    masters, states = _masters(engine), engine.base_optimizer.state
    fragments = []
    for name, parameter in parameters:
        master = masters[parameter]
        weight, exp_avg, exp_avg_sq = (
            tensor.detach().view(-1) for tensor in (master, *_moments(states[master]))
        )
        fragments.append(
            Fragment(
                name=name, shape=tuple(parameter.shape), start=0,
                weight=weight, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq,
            )
        )  # fmt: skip
    return fragments


def _masters(engine: ShardedEngine) -> dict[nn.Parameter, Tensor]:
    """Return each parameter's fp32 value without ZeRO: itself, or a copy in low precision."""
    optimizer = engine.zero_optimizer
    if not hasattr(optimizer, "fp32_groups"):
        return {p: p for group in optimizer.param_groups for p in group["params"]}
    return {
        parameter: master
        for low, high in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
        for parameter, master in zip(low, high, strict=True)
    }


def _zero_1_and_2(engine: ShardedEngine, name: str, parameter: Any) -> Fragment | None:
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    exp_avg, exp_avg_sq = (mapping.get_optim_state_fragment(moment) for moment in MOMENTS)
    return Fragment(
        name=name, shape=tuple(parameter.shape), start=mapping.lp_fragment_address.start,
        weight=mapping.hp_fragment.detach(), exp_avg=exp_avg, exp_avg_sq=exp_avg_sq,
    )  # fmt: skip


def _zero_3(engine: ShardedEngine, name: str, parameter: Any) -> Fragment | None:
    """Return the part that lies here, without what fills up the last process's part."""
    optimizer = engine.zero_optimizer
    group, offset, padded_numel = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = padded_numel * optimizer._get_param_partition_rank(parameter)
    numel = min(padded_numel, parameter.ds_numel - start)
    if numel <= 0:
        return None
    flat = optimizer.fp32_partitioned_groups_flat[group]
    weight, exp_avg, exp_avg_sq = (
        tensor.detach().narrow(0, offset, numel)
        for tensor in (flat, *_moments(engine.base_optimizer.state[flat]))
    )
    return Fragment(
        name=name, shape=tuple(parameter.ds_shape), start=start,
        weight=weight, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq,
    )  # fmt: skip


def _moments(state: dict[str, Tensor]) -> list[Tensor]:
    return [state[moment] for moment in MOMENTS]


def _optimized_tensors(engine: ShardedEngine, group: dict[str, Any]) -> list[Tensor]:
    if engine.stage != 3:
        return list(group["params"])
    # Between steps the groups of ZeRO-3 hold the parameters, not the flat shards.
    optimizer = engine.zero_optimizer
    groups = optimizer.sub_group_to_group_id
    return [
        flat
        for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat)
        if engine.base_optimizer.param_groups[groups[number]] is group
    ]


def _publish_zero_3(optimizer: Any) -> None:
    """Make the shards for the forward pass from the fp32 ones, as the end of a step does."""
    persistent = optimizer.persistent_parameters
    if persistent:  # small parameters stay whole between steps
        persistent[0].partition(persistent)
    for number in range(len(optimizer.fp32_partitioned_groups_flat)):
        optimizer._reassign_or_swap_out_partitioned_parameters(number)
    if persistent:
        persistent[0].all_gather(persistent)
