# SPDX-License-Identifier: Apache-2.0
"""Ways to spread a training over devices: what the planner tries, one value for each.

Called by `planner` and `fsb plan`. Never computes what a layout costs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pyfsb.config import ParallelismSpec, RunSpec, Stage
from pyfsb.errors import ConfigError
from pyfsb.schema import Json
from pyfsb.training.memory import Sharding
from pyfsb.training.pools import Pool, Precision

MICRO_TOKENS: Final = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
"""Tokens of a micro-batch that are tried."""
MAX_NODES: Final = 4096
"""Nodes of a plan at most."""
_STAGES: Final = (
    (0, False, False), (1, False, False), (2, False, False), (3, False, False),
    (1, True, False), (2, True, False), (3, True, False), (3, True, True),
)  # fmt: skip
"""ZeRO stage, offloaded optimizer, offloaded parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to spread a training."""

    zero_stage: int
    offload_optimizer: bool
    offload_parameters: bool
    micro_tokens: int
    activation_checkpointing: bool
    precision: Precision
    num_nodes: int
    devices_per_node: int

    @property
    def num_devices(self) -> int:
        """All devices together."""
        return self.num_nodes * self.devices_per_node

    @property
    def sharding(self) -> Sharding:
        """What decides about model states."""
        return Sharding(
            zero_stage=self.zero_stage,
            offloads_optimizer=self.offload_optimizer,
            offloads_parameters=self.offload_parameters,
            precision=self.precision,
            num_devices=self.num_devices,
            devices_per_node=self.devices_per_node,
        )

    @property
    def title(self) -> str:
        """A short name for tables and messages."""
        offload = "" if not self.offload_optimizer else " + offload"
        if self.offload_parameters:
            offload = " + offload of all"
        again = ", checkpointing" if self.activation_checkpointing else ""
        return f"ZeRO-{self.zero_stage}{offload}, {self.micro_tokens} tokens{again}"

    def to_spec(self) -> Json:
        """Return the lines of a run spec that mean this layout."""
        return {
            "batch": {"micro_tokens": self.micro_tokens},
            "parallelism": {
                "num_processes": self.devices_per_node,
                "zero_stage": self.zero_stage,
                "offload_optimizer": self.offload_optimizer,
                "offload_parameters": self.offload_parameters,
                "precision": self.precision,
                "activation_checkpointing": self.activation_checkpointing,
            },
        }


def as_training(spec: RunSpec) -> RunSpec:
    """Return a spec that only fine-tunes as a training of the same steps, on rows for texts."""
    if Stage.TRAINING in spec.stages:
        return spec
    settings = spec.evaluation.finetune
    length = {"max_steps": settings.max_steps, "num_epochs": settings.num_epochs}
    return spec.model_copy(
        update={
            "batch": settings.batch,
            "data": spec.data.model_copy(update={"max_tokens": settings.max_tokens}),
            "training": spec.training.model_copy(update={**length, "lora": settings.lora}),
        }
    )


def layout_of(spec: RunSpec, pool: Pool, *, num_nodes: int, devices_per_node: int) -> Layout:
    """Return the layout that a spec asks for."""
    spec = as_training(spec)
    parallelism: ParallelismSpec = spec.parallelism
    return Layout(
        zero_stage=parallelism.zero_stage,
        offload_optimizer=parallelism.offload_optimizer,
        offload_parameters=parallelism.offload_parameters,
        micro_tokens=spec.batch.micro_tokens,
        activation_checkpointing=parallelism.activation_checkpointing,
        precision=parallelism.precision or pool.default_precision,
        num_nodes=num_nodes,
        devices_per_node=devices_per_node,
    )


def enumerate_layouts(
    pool: Pool, *, nodes: Sequence[int], precision: Precision, max_tokens: int, step_tokens: int
) -> Iterator[Layout]:
    """Yield every layout worth trying on so many nodes.

    Args:
        pool: The nodes.
        nodes: Numbers of nodes.
        precision: Of forward and backward.
        max_tokens: Tokens of a document at most: a micro-batch holds one.
        step_tokens: Tokens of an optimizer step: devices get no more than their share at once.
    """
    for num_nodes, (stage, optimizer, parameters) in itertools.product(nodes, _STAGES):
        share = step_tokens / (num_nodes * pool.devices_per_node)
        sizes = [size for size in MICRO_TOKENS if max_tokens <= size <= max(share, max_tokens)]
        for size, again in itertools.product(sizes or [max_tokens], (False, True)):
            yield Layout(
                zero_stage=stage,
                offload_optimizer=optimizer,
                offload_parameters=parameters,
                micro_tokens=size,
                activation_checkpointing=again,
                precision=precision,
                num_nodes=num_nodes,
                devices_per_node=pool.devices_per_node,
            )


def lighter(layout: Layout, max_tokens: int) -> Iterator[Layout]:
    """Yield layouts that need less memory on the same devices, the cheapest change first."""
    yield replace(layout, activation_checkpointing=True)
    small = replace(layout, activation_checkpointing=True)
    sizes = [size for size in MICRO_TOKENS if max_tokens <= size < layout.micro_tokens]
    for size in [*reversed(sizes), *([] if max_tokens in sizes else [max_tokens])]:
        small = replace(layout, activation_checkpointing=True, micro_tokens=size)
        yield small
    for stage, optimizer, parameters in _STAGES:
        if (stage, optimizer, parameters) > (
            layout.zero_stage, layout.offload_optimizer, layout.offload_parameters,
        ):  # fmt: skip
            for again, size in ((False, layout.micro_tokens), (True, small.micro_tokens)):
                yield replace(
                    layout,
                    zero_stage=stage,
                    offload_optimizer=optimizer,
                    offload_parameters=parameters,
                    activation_checkpointing=again,
                    micro_tokens=size,
                )


def parse_nodes(text: str) -> tuple[int, ...]:
    """Read numbers of nodes: `8`, `4,8,12`, or `4..32` (doubled from 4 on, and 32).

    Raises:
        ConfigError: It is none of these, or a number is not from 1 to 4096.
    """
    match = re.fullmatch(r"(\d+)\.\.(\d+)", text.strip())
    if match:
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise ConfigError(
                f"--nodes {text}: {first} is more than {last}; expected {last}..{first}"
            )
        nodes = [first]
        while 0 < nodes[-1] * 2 < last:
            nodes.append(nodes[-1] * 2)
        nodes.append(last)
    elif re.fullmatch(r"\d+(\s*,\s*\d+)*", text.strip()):
        nodes = [int(part) for part in text.split(",")]
    else:
        raise ConfigError(f"--nodes {text!r}: expected a number, a list 4,8 or a range 4..32")
    if not all(1 <= number <= MAX_NODES for number in nodes):
        raise ConfigError(f"--nodes {text}: expected numbers from 1 to {MAX_NODES}")
    return tuple(sorted(set(nodes)))
