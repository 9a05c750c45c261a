# SPDX-License-Identifier: Apache-2.0
"""The DeepSpeed engine: a module, its optimizer and their shards, one optimizer step at a time.

The loop calls it; `restoring` and `checkpoint` read and set its tensors through the attributes it
exposes, because DeepSpeed's own checkpoints cannot change the number of processes and open pickles.
A step's gradient norm is known before weights change: whoever steps may refuse it, and then
weights and moments stay as they were. Never decides what a spike is.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from pyfsb.config import OptimizerSpec, ParallelismSpec
from pyfsb.errors import ConfigError
from pyfsb.schema import Json
from pyfsb.training.config import Precision, build_deepspeed_config, resolve_precision
from pyfsb.training.fragments import initialize_moments
from pyfsb.training.optim import build_optimizer

Accepts: TypeAlias = Callable[[float], bool]
"""Says whether a step with this gradient norm may change the weights; equal on all processes."""
_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SCALER_FIELDS: Final = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What became of a step's gradients."""

    gradient_norm: float
    """Global norm before clipping, loss scale taken out; infinite where it is not a number."""
    is_applied: bool
    """Weights and moments changed."""
    is_overflow: bool = False
    """The gradients outgrew fp16, and the loss scale goes down for it."""


class Engine:
    """A module, its optimizer and their shards over the process group."""

    stage: int
    """ZeRO stage."""
    deepspeed: Any
    """The DeepSpeedEngine."""
    zero_optimizer: Any
    """DeepSpeed's sharding optimizer; the base optimizer itself where stage is 0."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerSpec,
        parallelism: ParallelismSpec,
        precision: Precision = "fp32",
    ) -> None:
        """Hand a module with its first weights to DeepSpeed.

        Args:
            module: Returns the sum of the losses of a batch. Parameters that need no gradient
                stay as they are.
            optimizer: Optimizer settings.
            parallelism: ZeRO stage and offload.
            precision: Of forward and backward; weights are updated in fp32.

        Raises:
            ConfigError: This device cannot compute in that precision.
        """
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        check_precision(precision)
        self.stage = parallelism.zero_stage
        self.precision: Precision = precision
        self._limit = optimizer.max_gradient_norm
        self._accepts: Accepts = _accept
        self._update = Update(gradient_norm=math.inf, is_applied=False)
        with contextlib.redirect_stdout(io.StringIO()):  # BF16_Optimizer prints its memory
            self.deepspeed, self.zero_optimizer, _, _ = deepspeed.initialize(
                model=module,
                optimizer=build_optimizer(module, optimizer),
                config=build_deepspeed_config(optimizer, parallelism, precision),
            )
        self._scaler = self._find_scaler()
        initialize_moments(self)
        self._stand_between_norm_and_step()

    @property
    def module(self) -> nn.Module:
        """The module; under ZeRO-3 its parameters are empty between steps."""
        module: nn.Module = self.deepspeed.module
        return module

    @property
    def base_optimizer(self) -> torch.optim.Optimizer:
        """The AdamW whose state holds the moments of (this process's shard of) the weights."""
        base: torch.optim.Optimizer = getattr(self.zero_optimizer, "optimizer", self.zero_optimizer)
        return base

    def __call__(self, **batch: Tensor) -> Tensor:
        """Return the module's loss of a batch."""
        if self.stage == 0:
            device = self.deepspeed.device.type
            # Within the engine: DeepSpeed turns an autocast around itself off again.
            is_half = self.precision != "fp32"
            with torch.autocast(device, dtype=_DTYPES.get(self.precision), enabled=is_half):
                whole: Tensor = self.module(**batch)
            return whole
        loss: Tensor = self.deepspeed(**batch)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients; DeepSpeed averages them over the processes at the step."""
        if self.stage == 0 and self._scaler:
            loss = loss * self._scaler.loss_scale
        self.deepspeed.backward(loss)

    def step(self, learning_rate: float, accepts: Accepts | None = None) -> Update:
        """Take an optimizer step with the gradients so far, or drop them.

        Args:
            learning_rate: Of this step.
            accepts: Asked with the norm of finite gradients before weights change; None accepts.
                Gradients that are not finite are always dropped.
        """
        for group in self.base_optimizer.param_groups:
            group["lr"] = learning_rate
        self._accepts = accepts or _accept
        self._update = Update(gradient_norm=math.inf, is_applied=False)
        before = self.loss_scale_state()
        self.deepspeed.step()
        if not self._update.is_applied:
            self._forget_gradients()
            if self._scaler and math.isfinite(self._update.gradient_norm):
                self.set_loss_scale_state(before)  # a spike is no reason for a lower scale
            elif self._scaler and before["cur_scale"] > self._scaler.min_scale:
                return Update(gradient_norm=math.inf, is_applied=False, is_overflow=True)
        return self._update

    def loss_scale_state(self) -> Json:
        """Return where fp16's loss scale stands; empty for other precisions."""
        return {name: getattr(self._scaler, name) for name in _SCALER_FIELDS if self._scaler}

    def set_loss_scale_state(self, state: Mapping[str, Any]) -> None:
        """Continue with a loss scale from `loss_scale_state`."""
        for name, value in state.items():
            setattr(self._scaler, name, value)

    def _find_scaler(self) -> Any:
        """Return what keeps fp16's loss scale, or None."""
        if self.precision != "fp16":
            return None
        if self.stage:
            scaler = self.zero_optimizer.loss_scaler
        else:
            from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

            scaler = DynamicLossScaler(
                init_scale=2.0**16, scale_window=1000, min_scale=1, delayed_shift=2,
                consecutive_hysteresis=False,
            )  # fmt: skip
        scaler.raise_error_at_min_scale = False  # the loop says which samples it was
        return scaler

    def _stand_between_norm_and_step(self) -> None:
        """Let `_judge` see each norm before weights change.

        DeepSpeed's sharding optimizers drop the gradients of a step whose norm is not finite, so
        a refused norm is handed on as infinite. The two others ask nobody: their AdamW finds no
        gradients then, and a step without gradients changes nothing.
        """
        zero = self.zero_optimizer
        if hasattr(zero, "scaled_global_norm"):
            combine = zero.scaled_global_norm

            def judged_norm(*args: Any, **kwargs: Any) -> Any:
                scaled = combine(*args, **kwargs)
                is_good = self._judge(float(scaled) / zero.loss_scale)
                return scaled if is_good else torch.tensor(math.inf)

            zero.scaled_global_norm = judged_norm
        elif hasattr(zero, "_get_norm_groups"):
            from deepspeed.runtime.utils import combine_grad_norm_groups

            measure = zero._get_norm_groups

            def judged_groups() -> list[Any]:
                groups: list[Any] = measure()
                norm = float(combine_grad_norm_groups(groups)) / zero.loss_scale
                return groups if self._judge(norm) else [torch.tensor(math.inf)]

            zero._get_norm_groups = judged_groups
        elif self.stage:
            self.base_optimizer.register_step_pre_hook(self._before_sharded_step)
        else:
            self.base_optimizer.register_step_pre_hook(self._before_whole_step)

    def _judge(self, norm: float) -> bool:
        is_good = math.isfinite(norm) and self._accepts(norm)
        self._update = Update(
            gradient_norm=norm if math.isfinite(norm) else math.inf, is_applied=is_good
        )
        return is_good

    def _before_sharded_step(self, *_: Any) -> None:
        """Judge a step of DeepSpeed's BF16_Optimizer, whose gradients are clipped already."""
        if not self._judge(float(self.zero_optimizer._global_grad_norm)):
            self._drop_gradients()

    def _before_whole_step(self, *_: Any) -> None:
        """Scale, judge and clip the gradients of a step without ZeRO."""
        parameters = self._optimized_tensors()
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self._scaler:
            torch._foreach_div_(gradients, self._scaler.loss_scale)
        norm = nn.utils.get_total_norm(gradients)
        if self._judge(float(norm)):
            nn.utils.clip_grads_with_norm_(parameters, self._limit, norm)
        else:
            self._drop_gradients()
        if self._scaler:
            self._scaler.update_scale(not math.isfinite(float(norm)))

    def _forget_gradients(self) -> None:
        """Empty what DeepSpeed 0.19 keeps after a dropped step of offloaded ZeRO-1 and 2."""
        if self.stage in (1, 2) and hasattr(self.zero_optimizer, "averaged_gradients"):
            for number in self.zero_optimizer.averaged_gradients:
                self.zero_optimizer.averaged_gradients[number] = None

    def _drop_gradients(self) -> None:
        for tensor in self._optimized_tensors():
            tensor.grad = None

    def _optimized_tensors(self) -> list[Any]:
        if self.stage == 3:
            return list(self.zero_optimizer.fp32_partitioned_groups_flat)
        return [tensor for group in self.base_optimizer.param_groups for tensor in group["params"]]


def precision_of(parallelism: ParallelismSpec, device: torch.device) -> Precision:
    """Return the precision that a spec means on a device of this process."""
    from deepspeed.accelerator import get_accelerator

    has_bf16 = get_accelerator().is_bf16_supported()
    return resolve_precision(parallelism, device.type, has_bf16=has_bf16)


def check_precision(precision: Precision) -> None:
    """Refuse a precision that this process's device cannot compute in.

    Raises:
        ConfigError: Names what it can.
    """
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    has = {"bf16": accelerator.is_bf16_supported(), "fp16": accelerator.is_fp16_supported()}
    if not has.get(precision, True):
        others = [name for name, is_there in has.items() if is_there]
        raise ConfigError(
            f"parallelism.precision = {precision}: this {accelerator.device_name()} does not "
            f"compute in it; take {' or '.join([*others, 'fp32'])}"
        )


def _accept(_: float) -> bool:
    return True
