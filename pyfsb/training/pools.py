# SPDX-License-Identifier: Apache-2.0
"""Kinds of nodes that plans are made for: their devices, memory and networks.

The known ones stand in `pool_table`; a user describes others in a YAML file with the same fields.
Called by the planner and `fsb plan`. Never looks at a cluster: `operators.settings` has node pools
of its own, and a plan is made before anything is started.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.schema import Schema, parse, parse_yaml_mapping

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
Amount = Annotated[float, Field(gt=0.0)]

_MATMUL_RATIO = 0.8
_ATTENTION_RATIO = 0.5


class Pool(Schema):
    """One kind of nodes; bandwidths are bytes a second in one direction."""

    name: str
    """Name in plans."""
    devices_per_node: Annotated[int, Field(ge=1)] = 8
    """Accelerators of a node."""
    memory_bytes: Amount
    """Memory of a device."""
    bf16_flops: Annotated[float, Field(ge=0.0)] = 0.0
    """Dense peak in bfloat16, operations a second; 0 where the device has none."""
    fp16_flops: Amount
    """Dense peak in float16 with sums in float32."""
    fp32_flops: Amount
    """Peak in float32 without tensor cores."""
    matmul_flops: Amount | None = None
    """What the best 16-bit matrix products reach, measured. None takes 0.8 of the peak."""
    attention_flops: Amount | None = None
    """What fused attention reaches, forward and backward, heads of 128. None takes half the
    peak."""
    memory_bandwidth: Amount
    """Of a device's memory."""
    num_multiprocessors: Annotated[int, Field(ge=1)]
    """Streaming multiprocessors, or AI cores, of a device."""
    clock_hertz: Amount
    """Of the multiprocessors under load."""
    intra_bandwidth: Amount
    """Between devices of a node, for each device."""
    inter_bandwidth: Amount
    """Of a node to others."""
    host_bandwidth: Amount = 25e9
    """Between a device and the host's memory; 25 GB/s is PCIe 4.0 x16 as reached."""
    host_memory_bytes: Amount = 1e12
    """Memory of a node."""
    host_memory_bandwidth: Amount = 150e9
    """Of a node's memory as an optimizer on the CPU reaches it."""
    watts_per_device: Amount | None = None
    """Board power of a device. None: no energy is given unless the spec states it."""
    sources: dict[str, str] = {}
    """Where figures come from, by field; `*` for all others."""

    @model_validator(mode="after")
    def _sources_name_fields(self) -> Self:
        unknown = sorted(set(self.sources) - set(type(self).model_fields) - {"*"})
        if unknown:
            raise ValueError(f"sources names no field of a pool: {', '.join(unknown)}")
        return self

    @property
    def default_precision(self) -> Precision:
        """bfloat16 where the device has it."""
        return "bf16" if self.bf16_flops else "fp16"

    def peak_flops(self, precision: Precision) -> float:
        """Return the dense peak of a device in a precision.

        Raises:
            ConfigError: The device does not compute in it.
        """
        peaks = {"bf16": self.bf16_flops, "fp16": self.fp16_flops, "fp32": self.fp32_flops}
        if not peaks[precision]:
            raise ConfigError(
                f"parallelism.precision = {precision}: pool {self.name} does not compute in it; "
                "take fp16"
            )
        return peaks[precision]

    def reached_flops(self, precision: Precision) -> float:
        """Return what matrix products reach in a precision."""
        peak = self.peak_flops(precision)
        if precision == "fp32" or self.matmul_flops is None:
            return _MATMUL_RATIO * peak
        return self.matmul_flops

    def reached_attention_flops(self, precision: Precision) -> float:
        """Return what attention reaches in a precision."""
        peak = self.peak_flops(precision)
        if precision == "fp32" or self.attention_flops is None:
            return _ATTENTION_RATIO * peak
        return self.attention_flops

    @property
    def issue_rate(self) -> float:
        """Cycles a second of all multiprocessors together."""
        return self.num_multiprocessors * self.clock_hertz


def known_pools() -> dict[str, Pool]:
    """Return the pools of the table by name."""
    from pyfsb.training.pool_table import POOLS

    return {pool.name: pool for pool in POOLS}


def find_pool(name_or_path: str) -> Pool:
    """Return a known pool, or one that a YAML file describes.

    Raises:
        UnknownNameError: No pool has this name; carries the nearest ones.
        ConfigError: The file is missing or wrong; names the field.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except OSError as exc:
            raise ConfigError(f"pool {name_or_path}: {exc.strerror}") from None
        value: dict[str, Any] = parse_yaml_mapping(text, source=name_or_path)
        return parse(Pool, {"name": Path(name_or_path).stem, **value}, source=name_or_path)
    pools = known_pools()
    if name_or_path not in pools:
        known = ", ".join(pools)
        raise UnknownNameError(
            f"pool (known: {known}; or a .yaml file of your own)", name_or_path, pools
        )
    return pools[name_or_path]
