# SPDX-License-Identifier: Apache-2.0
"""Known node pools. Data only: every figure names its source.

Memory and bandwidth are the vendors' decimal figures. Where `matmul_flops` or `attention_flops` is
left out, nobody's measurement is known to us and `pools` estimates.
"""

from __future__ import annotations

from typing import Final

from pyfsb.training.pools import Pool

_MAMF: Final = (
    "stas00/ml-engineering, compute/accelerator, maximum achievable matmul FLOPS "
    "(measured, CUDA 12.1)"
)
_FLASH_2: Final = "Dao 2023, FlashAttention-2, figures 4 and 7: forward and backward, heads of 128"
_LLM_FOUNDRY: Final = "mosaicml/llm-foundry, scripts/train/benchmarking: its cluster's network"
_A100: Final = "NVIDIA A100 datasheet and GA100 whitepaper"
_H100: Final = "NVIDIA H100 datasheet and GH100 whitepaper; clock from 989 TFLOPS of 132 SMs"
_DGX: Final = "DGX of that generation: NVLink, InfiniBand HDR/NDR for each device"

POOLS: Final = (
    Pool(
        name="a100-40", memory_bytes=40e9, bf16_flops=312e12, fp16_flops=312e12,
        fp32_flops=19.5e12, matmul_flops=267.9e12, attention_flops=203e12,
        memory_bandwidth=1.555e12, num_multiprocessors=108, clock_hertz=1.41e9,
        intra_bandwidth=300e9, inter_bandwidth=200e9, watts_per_device=400.0,
        sources={
            "*": _A100, "matmul_flops": _MAMF, "attention_flops": _FLASH_2,
            "inter_bandwidth": _LLM_FOUNDRY + " (1600 Gb/s)",
        },
    ),
    Pool(
        name="a100-80", memory_bytes=80e9, bf16_flops=312e12, fp16_flops=312e12,
        fp32_flops=19.5e12, matmul_flops=267.9e12, attention_flops=203e12,
        memory_bandwidth=2.039e12, num_multiprocessors=108, clock_hertz=1.41e9,
        intra_bandwidth=300e9, inter_bandwidth=200e9, watts_per_device=400.0,
        sources={
            "*": _A100, "matmul_flops": _MAMF, "attention_flops": _FLASH_2,
            "inter_bandwidth": _LLM_FOUNDRY + " (1600 Gb/s)",
        },
    ),
    Pool(
        name="h100-80", memory_bytes=80e9, bf16_flops=989e12, fp16_flops=989e12,
        fp32_flops=67e12, matmul_flops=792.1e12, attention_flops=335e12,
        memory_bandwidth=3.35e12, num_multiprocessors=132, clock_hertz=1.83e9,
        intra_bandwidth=450e9, inter_bandwidth=400e9, host_bandwidth=50e9,
        host_memory_bytes=2e12, watts_per_device=700.0,
        sources={
            "*": _H100, "matmul_flops": _MAMF, "attention_flops": _FLASH_2,
            "inter_bandwidth": _DGX + ", 400 Gb/s",
        },
    ),
    Pool(
        name="h200", memory_bytes=141e9, bf16_flops=989e12, fp16_flops=989e12,
        fp32_flops=67e12, matmul_flops=792.1e12, attention_flops=335e12,
        memory_bandwidth=4.8e12, num_multiprocessors=132, clock_hertz=1.83e9,
        intra_bandwidth=450e9, inter_bandwidth=400e9, host_bandwidth=50e9,
        host_memory_bytes=2e12, watts_per_device=700.0,
        sources={
            "*": "NVIDIA H200 datasheet; the chip is the H100's",
            "matmul_flops": _MAMF + ", of the H100", "attention_flops": _FLASH_2 + ", of the H100",
            "inter_bandwidth": _DGX + ", 400 Gb/s",
        },
    ),
    Pool(
        name="v100-32", memory_bytes=32e9, fp16_flops=125e12, fp32_flops=15.7e12,
        memory_bandwidth=900e9, num_multiprocessors=80, clock_hertz=1.53e9,
        intra_bandwidth=150e9, inter_bandwidth=50e9, host_bandwidth=12e9,
        host_memory_bytes=512e9, watts_per_device=300.0,
        sources={
            "*": "NVIDIA V100 datasheet and GV100 whitepaper (SXM2)",
            "inter_bandwidth": "DGX-1: four InfiniBand EDR ports",
        },
    ),
    Pool(
        name="rtx3090-24", memory_bytes=24e9, bf16_flops=71e12, fp16_flops=71e12,
        fp32_flops=35.6e12, memory_bandwidth=936e9, num_multiprocessors=82, clock_hertz=1.695e9,
        intra_bandwidth=12e9, inter_bandwidth=3e9, host_bandwidth=12e9,
        host_memory_bytes=256e9, watts_per_device=350.0,
        sources={
            "*": "NVIDIA GA102 whitepaper: RTX 3090, sums in fp32",
            "intra_bandwidth": "our estimate: PCIe 4.0 x16 without peer-to-peer",
            "inter_bandwidth": "our estimate: 25 Gb/s Ethernet",
        },
    ),
    Pool(
        name="ascend910", memory_bytes=32e9, fp16_flops=256e12, fp32_flops=8e12,
        memory_bandwidth=1.2e12, num_multiprocessors=32, clock_hertz=1.0e9,
        intra_bandwidth=30e9, inter_bandwidth=100e9, host_bandwidth=16e9,
        host_memory_bytes=768e9, watts_per_device=310.0,
        sources={
            "*": "Liao et al. 2019, DaVinci (Hot Chips 31), and the Atlas 800-9000 white paper",
            "fp32_flops": "our estimate: the vector units alone",
            "num_multiprocessors": "AI cores; their vector units are not a GPU's, so rough",
            "intra_bandwidth": "HCCS 30 GB/s",
            "inter_bandwidth": "eight 100 Gb/s RoCE ports of a node",
        },
    ),
)  # fmt: skip
"""Pools by what the seeds and the public tables ran on."""
