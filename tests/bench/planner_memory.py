"""The memory half of B12: predicted bytes beside torch's tracker and DeepSpeed's own estimators.

The limit is exactness: what is counted are tensors, and nothing of it is noise.
"""

from __future__ import annotations

import statistics

import torch

from pyfsb.training.memory import Sharding, count_states
from tests.helpers.memory import PAIRS, compare, config_of

ARCHITECTURES = ("bert", "megatron-bert", "deberta-v2", "gpt2", "t5", "mt5", "bart", "pegasus")
LENGTHS = [256] * 4
"""Equal: CPUs attend to unequal ones group by group and keep results twice, accelerators do not."""


def report() -> None:
    report_activations()
    report_states()


def report_activations() -> None:
    """Print errors of activations, and of a ZeRO-1 process on 8 devices as a whole."""
    found = []
    for architecture in ARCHITECTURES:
        config = config_of(architecture, hidden=256, layers=4, vocabulary=4000)
        ratio = 0.15 if architecture not in (*PAIRS, "gpt2") else 1.0
        ratio = 0.25 if architecture in PAIRS else ratio
        for again in (False, True):
            for dtype in (torch.float32, torch.bfloat16):
                tracked, predicted, count = compare(
                    architecture, config, LENGTHS, target_ratio=ratio, is_checkpointing=again,
                    dtype=dtype,
                )  # fmt: skip
                states = count_states(
                    count,
                    Sharding(
                        zero_stage=1, offloads_optimizer=False, offloads_parameters=False,
                        precision="fp32" if dtype is torch.float32 else "bf16", num_devices=8,
                        devices_per_node=8,
                    ),
                ).device  # fmt: skip
                whole = (states + predicted) / (states + tracked) - 1
                found.append((abs(predicted / tracked - 1), abs(whole)))
                print(
                    f"{architecture:14} {str(dtype)[6:]:9} {'checkpointed' if again else '':12} "
                    f"tracked {tracked / 1e6:7.1f} MB, predicted {predicted / 1e6:7.1f} "
                    f"({predicted / tracked - 1:+.2%}; with states {whole:+.2%})"
                )
    for title, values in zip(("activations", "with states"), zip(*found, strict=True), strict=True):
        mean, worst = statistics.mean(values), max(values)
        print(f"memory, {title}: mean error {mean:.2%}, worst {worst:.2%} (target 3 %)")


def report_states() -> None:
    """Print model states beside DeepSpeed's estimators, for 1.3B parameters on 32 devices."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    count, devices = 1_300_000_000, 32
    for stage in (2, 3):
        ours = count_states(
            count,
            Sharding(
                zero_stage=stage, offloads_optimizer=False, offloads_parameters=False,
                precision="bf16", num_devices=devices, devices_per_node=8,
            ),
        ).device  # fmt: skip
        if stage == 2:
            theirs = estimate_zero2_model_states_mem_needs(count, 8, 4, cpu_offload=False)[1]
            theirs -= 2 * count // devices  # 16-bit gradients of the shard: freed at once
        else:
            theirs = estimate_zero3_model_states_mem_needs(
                count, 0, 8, 4, cpu_offload=False, cpu_offload_params=False
            )[1]
        print(f"ZeRO-{stage}: {ours / 1e9:.4f} GB, DeepSpeed's estimator {theirs / 1e9:.4f} GB")
