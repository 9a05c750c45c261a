# SPDX-License-Identifier: Apache-2.0
"""What DeepSpeed and torchrun are told, derived from the run spec by pure functions.

`fsb explain` shows both; the launcher and the engine use them. Never imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from pyfsb.config import OptimizerSpec, ParallelismSpec, default_threads

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

LAUNCHER_PID = "FSB_TORCHRUN_PID"
"""Environment variable of the ranks: the process whose end is theirs."""
GRACE_SECONDS = 25
"""Time for the ranks to save after SIGTERM; below Kubernetes' 30 s."""
_SUM_IN_FP32: Final = {"grad_accum_dtype": "fp32"}
_HALF: Final[dict[Precision, dict[str, Any]]] = {
    "fp32": {},
    # Gradients go into the fp32 buffer as they come: otherwise ZeRO-1 counts the earlier
    # micro-steps again in each later one.
    "bf16": {
        "bf16": {"enabled": True, "immediate_grad_update": True},
        "data_types": _SUM_IN_FP32,
    },
    "fp16": {
        "fp16": {
            "enabled": True, "loss_scale": 0, "initial_scale_power": 16,
            "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1,
        },
        "data_types": _SUM_IN_FP32,
    },
}  # fmt: skip


def resolve_precision(
    parallelism: ParallelismSpec, device_type: str, *, has_bf16: bool = True
) -> Precision:
    """Return the number format of forward and backward.

    Args:
        parallelism: What the spec asks for; its `precision` wins.
        device_type: Such as cpu or cuda.
        has_bf16: The accelerator computes in bfloat16; no matter on a CPU.

    Source: our choice: CPUs compute fp32 as fast, and 16-bit devices before Ampere lack bf16.
    """
    if parallelism.precision:
        return parallelism.precision
    if device_type == "cpu":
        return "fp32"
    return "bf16" if has_bf16 else "fp16"


def build_deepspeed_config(
    optimizer: OptimizerSpec, parallelism: ParallelismSpec, precision: Precision = "fp32"
) -> dict[str, Any]:
    """Return the DeepSpeed dict of a training.

    Batches are made by us in tokens and a step takes as many micro-steps as it needs, so gradient
    accumulation is unmanaged and the micro-batch size is a formality. The optimizer is torch's,
    also where its state lies in the host's memory. Gradients add up in fp32. Without ZeRO the
    engine clips and computes in half precision by itself, so the dict says fp32. ZeRO-1
    communicates at the step only, so there is nothing to overlap.

    Source: DeepSpeed 0.19 configuration reference; loss scale as in the fp16 recipes of the seeds.
    """
    stage = parallelism.zero_stage
    return {
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": optimizer.max_gradient_norm if stage else 0.0,
        **(_HALF[precision] if stage else {}),
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": stage > 1,
            "contiguous_gradients": stage > 0,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 500_000_000,
            **_build_offload(parallelism),
        },
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


def _build_offload(parallelism: ParallelismSpec) -> dict[str, Any]:
    host = {"device": "cpu", "pin_memory": True}
    wanted = {
        "offload_optimizer": parallelism.offload_optimizer,
        "offload_param": parallelism.offload_parameters,
    }
    return {name: host for name, is_wanted in wanted.items() if is_wanted}


def build_torchrun_command(
    module: str, arguments: Sequence[str], parallelism: ParallelismSpec, env: Mapping[str, str]
) -> list[str]:
    """Return the command that starts all ranks of this machine.

    Args:
        module: Python module that each rank runs.
        arguments: Its arguments.
        parallelism: Processes of one machine.
        env: Environment; a `PET_NNODES` in it (PyTorchJob) decides nodes and processes instead.
    """
    command = [sys.executable, "-m", "pyfsb.training.torchrun"]
    if "PET_NNODES" not in env:
        command += ["--standalone", "--nnodes", "1"]
        command += ["--nproc-per-node", str(parallelism.num_processes)]
    command += ["--max-restarts", "0", "--shutdown-timeout", str(GRACE_SECONDS)]
    return [*command, "-m", module, *arguments]


def build_rank_environment(parallelism: ParallelismSpec) -> dict[str, str]:
    """Return the environment of the ranks: threads, and the CPU where there is no accelerator."""
    threads = str(default_threads(parallelism))
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "DEEPSPEED_LOG_LEVEL": "ERROR",
    }
