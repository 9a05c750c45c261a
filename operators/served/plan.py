# SPDX-License-Identifier: Apache-2.0
"""A service: everything about the pods that answer for one checkpoint, in one typed description.

`plan_service` makes it from a ServedModel and the chart's settings, the builder renders it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from operators.places import PVC_SCHEME
from operators.quantities import share_cores, share_memory
from operators.settings import NodePool, OperatorSettings
from pyfsb import storage
from pyfsb.errors import ConfigError
from pyfsb.resources.kinds import ScaleSpec, ServedModelSpec

GRACE_SECONDS: Final = 60
"""Seconds between SIGTERM and SIGKILL: requests in work are answered, the longest takes 30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is, or is to be, served."""

    uri: str
    """s3:// or pvc://."""
    digest: str | None = None
    """Digest of its record, where it is known."""
    version: int | None = None
    """Version in the model store, when it was named by reference."""

    def is_same(self, other: Checkpoint) -> bool:
        """Say whether two are the same weights: by digest, where both are known, else by place."""
        if self.digest and other.digest:
            return self.digest == other.digest
        return self.uri.rstrip("/") == other.uri.rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything about the pods of one service."""

    name: str
    namespace: str
    checkpoint: Checkpoint
    storage_uri: str
    """What KServe fetches or mounts."""
    runtime: str
    image: str | None
    """None takes the runtime's."""
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    limits: Mapping[str, str]
    """Requests are the same, so that the target of the autoscaler means what it says."""
    shared_memory: str | None
    scale: ScaleSpec
    pool: NodePool
    service_account: str
    priority_class: str | None


def plan_service(
    *,
    name: str,
    namespace: str,
    spec: ServedModelSpec,
    checkpoint: Checkpoint,
    settings: OperatorSettings,
) -> Service:
    """Return the service of a ServedModel.

    Raises:
        ConfigError: Pods cannot reach the checkpoint, or have no devices.
        UnknownNameError: The pool is unknown.
    """
    pool = settings.pool(spec.pool)
    return Service(
        name=name,
        namespace=namespace,
        checkpoint=checkpoint,
        storage_uri=_storage_uri(checkpoint.uri, settings),
        runtime=settings.serving_runtime,
        image=spec.image,
        arguments=_arguments(name, spec),
        environment={**settings.environment, **pool.environment},
        limits=_limits(spec, pool),
        shared_memory=spec.resources.shared_memory,
        scale=spec.scale,
        pool=pool,
        service_account=spec.service_account or settings.service_account,
        priority_class=pool.priority_class,
    )


def _storage_uri(uri: str, settings: OperatorSettings) -> str:
    """Return the place in KServe's words.

    A scheme of our own leaves s3:// to whoever else fetches it. KServe takes every object whose key
    starts with the text: only with a slash at the end is `v1` not `v10` too.
    """
    if storage.is_s3(uri):
        return f"{settings.storage_scheme}+{storage.normalise(uri)}/"
    if uri.startswith(PVC_SCHEME):
        return uri.rstrip("/")
    raise ConfigError(
        f"checkpoint {uri!r}: pods share no disk; expected s3://bucket/folder, pvc://claim/folder "
        "or name@alias"
    )


def _arguments(name: str, spec: ServedModelSpec) -> tuple[str, ...]:
    """Return the server's arguments beside the runtime's own."""
    limits = {
        f"--{field.replace('_', '-')}": str(value)
        for field, value in spec.serving.model_dump(exclude_none=True).items()
    }
    return ("--name", name, *(part for pair in limits.items() for part in pair))


def _limits(spec: ServedModelSpec, pool: NodePool) -> dict[str, str]:
    """Return what one copy gets: as asked, else one device and its share of the pool's pod.

    A pool is described by what a whole node gives a gang; a copy of a model needs one device of it.
    """
    asked = spec.resources
    if asked.devices and not pool.device_resource:
        raise ConfigError(
            f"resources.devices = {asked.devices}: pool {spec.pool!r} has no accelerators; choose "
            "another pool or leave it out"
        )
    default = 1 if pool.devices_per_node else 0
    devices = default if asked.devices is None else asked.devices
    parts = max(1, pool.devices_per_node // max(1, devices))
    limits = {
        "cpu": asked.cpu or share_cores(pool.cpu, parts),
        "memory": asked.memory or share_memory(pool.memory, parts),
    }
    if devices:
        limits[str(pool.device_resource)] = str(devices)
    return limits
