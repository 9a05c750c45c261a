# SPDX-License-Identifier: Apache-2.0
"""The DeepSpeed engine, and its weights and moments as plain tensors keyed by parameter.

Everything that touches DeepSpeed's insides is in this file: its own checkpoints cannot change the
number of processes and open pickles, so training state is read and set tensor by tensor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from pyfsb.config import OptimizerSpec, ParallelismSpec
from pyfsb.training.config import build_deepspeed_config
from pyfsb.training.optim import build_optimizer

MOMENTS: Final = ("exp_avg", "exp_avg_sq")
"""AdamW's state of each parameter."""


class Engine:
    """A module, its optimizer and their shards over the process group."""

    def __init__(
        self, module: nn.Module, optimizer: OptimizerSpec, parallelism: ParallelismSpec
    ) -> None:
        """Hand a module with its first weights to DeepSpeed.

        Args:
            module: Returns the sum of the losses of a batch.
            optimizer: Optimizer settings.
            parallelism: ZeRO stage.
        """
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        self._stage = parallelism.zero_stage
        self._norm = 0.0
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=build_optimizer(module, optimizer),
            config=build_deepspeed_config(optimizer, parallelism),
        )
        self._set_moments_to_zero()
        if self._stage == 0:
            # Without ZeRO, DeepSpeed clips but does not tell the norm.
            limit = optimizer.max_gradient_norm
            self._base_optimizer.register_step_pre_hook(lambda *_: self._clip(limit))

    @property
    def module(self) -> nn.Module:
        """The module; under ZeRO-3 its parameters are empty between steps."""
        module: nn.Module = self._engine.module
        return module

    def __call__(self, **batch: Tensor) -> Tensor:
        """Return the module's loss of a batch."""
        loss: Tensor = self._engine(**batch)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients; DeepSpeed averages them over the processes at the step."""
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> float:
        """Take an optimizer step with the gradients so far; returns their norm before clipping."""
        for group in self._base_optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return self._norm if self._stage == 0 else float(self._engine.get_global_grad_norm())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every parameter's name and full fp32 value; all processes must take part."""
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self.module.named_parameters():
            if self._stage == 0:
                yield name, parameter.detach().float().cpu()
            else:
                yield name, safe_get_full_fp32_param(parameter).detach().cpu()

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yield `moment/parameter` and its full value; all processes must take part."""
        from deepspeed.utils import safe_get_full_optimizer_state

        for name, parameter in self.module.named_parameters():
            for moment in MOMENTS:
                if self._stage == 0:
                    value = self._base_optimizer.state[parameter][moment]
                else:
                    value = safe_get_full_optimizer_state(parameter, moment)
                yield f"{moment}/{name}", value.detach().cpu()

    def set_state(
        self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], *, step: int
    ) -> None:
        """Continue from saved weights and moments.

        Args:
            weights: Full fp32 value of every parameter; the module was built with them too.
            moments: Full value of every `moment/parameter`.
            step: Steps that the moments have seen.
        """
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        for state in self._base_optimizer.state.values():
            state["step"].fill_(float(step))
        for name, parameter in self.module.named_parameters():
            for moment in MOMENTS:
                value = moments[f"{moment}/{name}"]
                if self._stage == 0:
                    self._base_optimizer.state[parameter][moment].copy_(value)
                else:
                    safe_set_full_optimizer_state(parameter, value, moment)
            if self._stage:
                safe_set_full_fp32_param(parameter, weights[name])

    @property
    def _base_optimizer(self) -> torch.optim.Optimizer:
        base: torch.optim.Optimizer = getattr(self._optimizer, "optimizer", self._optimizer)
        return base

    def _set_moments_to_zero(self) -> None:
        """Give every (shard of a) parameter its state before the first step.

        DeepSpeed links the states of all groups after the first group's first step, when those of
        the other groups do not exist yet; afterwards they cannot be read.
        """
        for tensor in self._optimized_tensors():
            self._base_optimizer.state[tensor] = {
                "step": torch.tensor(0.0),
                **{moment: torch.zeros_like(tensor) for moment in MOMENTS},
            }
        if self._stage in (1, 2):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _optimized_tensors(self) -> list[Any]:
        if self._stage == 3:
            return list(self._optimizer.fp32_partitioned_groups_flat)
        return [tensor for group in self._base_optimizer.param_groups for tensor in group["params"]]

    def _clip(self, limit: float) -> None:
        parameters = [p for group in self._base_optimizer.param_groups for p in group["params"]]
        self._norm = float(nn.utils.clip_grad_norm_(parameters, limit))
