# SPDX-License-Identifier: Apache-2.0
"""The first model of a training, also one that no process can hold as a whole.

Under ZeRO-3 the first process builds the model in the host's memory as ever, the others only its
skeleton; before the engine is made, every parameter is sent around and taken apart, one after the
other. First weights are the same bits for any stage and number of processes, and one whole copy of
the model exists at most. `run` calls `build_first`, `session` calls `shard`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from transformers import PreTrainedModel

from pyfsb.config import OptimizerSpec, ParallelismSpec
from pyfsb.training.config import Precision, build_deepspeed_config
from pyfsb.training.distributed import ProcessGroup

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_first(
    build: Callable[[], PreTrainedModel],
    build_skeleton: Callable[[], PreTrainedModel],
    group: ProcessGroup,
    parallelism: ParallelismSpec,
) -> PreTrainedModel:
    """Return the model with its first weights; where it will be taken apart, whole on one process.

    Args:
        build: Makes the whole model.
        build_skeleton: Makes one of the same parameters; called with the meta device, values do
            not matter.
        group: The processes.
        parallelism: ZeRO stage.
    """
    if group.is_first or not is_sharded(group, parallelism):
        return build()
    with torch.device("meta"):
        return build_skeleton()


def is_sharded(group: ProcessGroup, parallelism: ParallelismSpec) -> bool:
    """Say whether parameters are taken apart: by ZeRO-3, over several processes."""
    return parallelism.zero_stage == 3 and group.size > 1


def shard(
    model: nn.Module, group: ProcessGroup, parallelism: ParallelismSpec, precision: Precision
) -> None:
    """Take a model apart in place: what is whole on the first process counts for all.

    Args:
        model: Whole there; a skeleton, or whatever of the same shapes, on the others.
        group: The processes.
        parallelism: ZeRO-3, with or without offload.
        precision: Of the parameters from now on; their fp32 values start from it.
    """
    from deepspeed import zero

    config = build_deepspeed_config(OptimizerSpec(), parallelism, precision)
    placed: dict[int, nn.Parameter] = {}
    # Children first: `Init` goes down into a module and leaves alone what is taken apart already.
    for module in reversed(list(model.modules())):
        own = [name for name, p in module._parameters.items() if p is not None]
        for name in own:
            parameter = module._parameters[name]
            assert parameter is not None
            if id(parameter) not in placed:
                placed[id(parameter)] = nn.Parameter(
                    _send(parameter.data, group, _DTYPES[precision]), parameter.requires_grad
                )
            module._parameters[name] = placed[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _send(buffer, group, buffer.dtype)
        if own:
            zero.Init(module=module, config_dict_or_path=config)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, tied ones once, also of a model that was taken apart."""
    return sum(int(getattr(p, "ds_numel", p.numel())) for p in model.parameters())


def _send(value: Tensor, group: ProcessGroup, dtype: torch.dtype) -> Tensor:
    """Return the first process's value on this process's device."""
    if group.is_first:
        whole = value.detach().to(device=group.device, dtype=dtype).contiguous()
    else:
        whole = torch.empty(value.shape, dtype=dtype, device=group.device)
    distributed.broadcast(whole, 0)
    return whole
