"""Published throughput as work for the throughput model: llm-foundry's table, NeMo's BERT."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyfsb.training.pools import Pool, find_pool
from pyfsb.training.throughput import (
    RECOMPUTED_ATTENTION,
    RECOMPUTED_LINEAR,
    RECOMPUTED_VECTOR,
    Work,
)

FIGURES = Path(__file__).parent / "figures"
VOCABULARY = 50368
# Hidden, layers, heads: llm-foundry scripts/train/yamls/pretrain/mpt-*.yaml.
MPT = {
    "125m": (768, 12, 12), "350m": (1024, 24, 16), "760m": (1536, 24, 12), "1b": (2048, 24, 16),
    "3b": (2560, 32, 20), "7b": (4096, 32, 32), "13b": (5120, 40, 40), "30b": (7168, 48, 56),
    "70b": (8192, 80, 64),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published run."""

    title: str
    pool: Pool
    precision: str
    num_devices: int
    work: Work
    seconds: float
    """Of a micro-batch, the share of the optimizer step included."""
    model_flops: float
    """Of a micro-batch on one device."""
    hardware_flops: float
    """The same with recomputation."""
    published_mfu: float
    """As they count: all embeddings, position rows included."""


def read_table(name: str) -> list[dict[str, str]]:
    lines = (FIGURES / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader((line for line in lines if line[0] != "#"), delimiter="\t"))


def read_rows(precision: str = "bf16") -> list[Row]:
    """Return the runs of one precision, bf16 or fp8."""
    rows = [_read_row(value) for value in read_table("llm_foundry.tsv")]
    return [row for row in rows if row.precision.endswith(precision)]


def _read_row(value: dict[str, str]) -> Row:
    hidden, layers, heads = MPT[value["model"]]
    length, devices = int(value["sequence_tokens"]), int(value["num_devices"])
    tokens = int(value["micro_rows"]) * length
    again = int(value["is_recomputing"])
    body = 6 * tokens * layers * 12 * hidden**2
    head = 6 * tokens * VOCABULARY * hidden
    attention = 12 * tokens * layers * hidden * length
    biases = (9 * layers + 2 * (2 * layers + 1)) * hidden
    parameters = 12 * layers * hidden**2 + (VOCABULARY + length) * hidden + biases
    # FSDP gathers weights in 16 bits for forward and, when fully sharded, for backward; gradients
    # are reduced in fp32, in 16 bits where mixed precision is PURE.
    gathers = 2 if value["sharding"] == "full" else 1
    reduced = 2 if value["precision"] == "bf16" else 4
    seconds = devices * tokens / float(value["tokens_per_second"])
    pool = find_pool(value["device"])
    return Row(
        title=f"{value['device']} {value['model']} x {length} on {devices}",
        pool=pool,
        precision=value["precision"],
        num_devices=devices,
        work=Work(
            linear_flops=body * (1 + RECOMPUTED_LINEAR * again) + head,
            attention_flops=attention * (1 + RECOMPUTED_ATTENTION * again),
            head_size=hidden // heads,
            vector_elements=tokens * layers * hidden * (1 + RECOMPUTED_VECTOR * again),
            logit_elements=tokens * VOCABULARY,
            num_layers=layers,
            device_bytes=(2 * gathers + reduced) * (12 * layers * hidden**2 + VOCABULARY * hidden),
        ),
        seconds=seconds,
        model_flops=body + head + attention,
        hardware_flops=body * (1 + again / 3) + head + attention * (1 + again / 3),
        published_mfu=(6 * parameters * tokens + attention) / seconds / pool.bf16_flops,
    )


def read_published_mfu() -> Iterator[tuple[Row, float]]:
    """Yield every row and its published MFU, to check the figures against each other."""
    for value in read_table("llm_foundry.tsv"):
        peak = 2.0 if value["precision"].endswith("fp8") else 1.0
        yield _read_row(value), float(value["published_mfu_percent"]) / 100 * peak
