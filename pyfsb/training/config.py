# SPDX-License-Identifier: Apache-2.0
"""What DeepSpeed and torchrun are told, derived from the run spec by pure functions.

`fsb explain` shows both; the launcher and the engine use them. Never imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyfsb.config import OptimizerSpec, ParallelismSpec, default_threads

LAUNCHER_PID = "FSB_TORCHRUN_PID"
"""Environment variable of the ranks: the process whose end is theirs."""
GRACE_SECONDS = 25
"""Time for the ranks to save after SIGTERM; below Kubernetes' 30 s."""


def build_deepspeed_config(
    optimizer: OptimizerSpec, parallelism: ParallelismSpec
) -> dict[str, Any]:
    """Return the DeepSpeed dict of a training.

    Batches are made by us in tokens and a step takes as many micro-steps as it needs, so gradient
    accumulation is unmanaged and the micro-batch size is a formality. The optimizer is torch's.

    Source: DeepSpeed 0.19 configuration reference.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": optimizer.max_gradient_norm if parallelism.zero_stage else 0.0,
        "zero_optimization": {
            "stage": parallelism.zero_stage,
            "overlap_comm": False,
            "contiguous_gradients": parallelism.zero_stage > 0,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 500_000_000,
        },
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


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
