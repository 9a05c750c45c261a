# SPDX-License-Identifier: Apache-2.0
"""What the chart tells the operator: images, node pools, namespaces, names of secrets.

One YAML file, mounted from a ConfigMap that the chart renders from its values. Never secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.schema import Json, Schema, parse, parse_yaml_mapping

SETTINGS_VARIABLE: Final = "FSB_OPERATOR_SETTINGS"
"""Environment variable: path of the settings file."""


class _Settings(Schema):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class NodePool(_Settings):
    """A kind of nodes: how to get onto them, what they have, how their network is used."""

    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: tuple[Json, ...] = ()
    """Taints that are tolerated, as in a pod spec."""
    device_resource: str | None = None
    """Name of the accelerator in a node's resources, e.g. nvidia.com/gpu. None: CPU only."""
    devices_per_node: Annotated[int, Field(ge=0)] = 0
    """Accelerators of a node."""
    cpu: str = "1"
    """CPU cores that a pod asks for."""
    memory: str = "4Gi"
    """Memory of a pod, shared memory included."""
    shared_memory: str = "1Gi"
    """Size of /dev/shm."""
    extra_resources: dict[str, str] = {}
    """Further limits, such as rdma/hca_shared_devices_a: 1."""
    capabilities: tuple[str, ...] = ()
    """Linux capabilities to add; any makes pods leave PSS restricted. Without a file capability a
    process that is not root gains nothing: RDMA needs an unlimited memlock of the runtime."""
    environment: dict[str, str] = {}
    """Environment of the pods: NCCL, GLOO and the like."""
    annotations: dict[str, str] = {}
    """Annotations of the pods, such as Multus networks."""
    priority_class: str | None = None
    """Priority class of the pods."""
    runtime_class: str | None = None
    """Runtime class of the pods."""
    spread_key: str = "kubernetes.io/hostname"
    """Node label over which the pods of a gang spread."""


class Images(_Settings):
    """Image of each stage, with its tag or digest."""

    data: str
    train: str
    eval: str
    serving: str
    operator: str


class OperatorSettings(_Settings):
    """Everything the operator is told."""

    images: Images
    """Stage images."""
    pull_policy: str = "IfNotPresent"
    """Image pull policy of every pod."""
    pull_secrets: tuple[str, ...] = ()
    """Names of image pull secrets."""
    pools: dict[str, NodePool] = {"default": NodePool()}
    """Node pools by name."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to look after; none means all."""
    service_account: str = "fengshenbang-run"
    """Service account of stage pods; it may do nothing."""
    credentials_secret: str | None = None
    """Secret with the S3 keys and endpoint as environment variables."""
    environment: dict[str, str] = {}
    """Environment of every stage pod: S3 endpoint, proxy, HF_ENDPOINT."""
    model_store: str | None = None
    """Folder or s3:// prefix of the model store; None: no name@alias."""
    leaderboard: str | None = None
    """s3:// or pvc:// folder that evaluations report to. None: nowhere."""
    progress_url: str | None = None
    """Where the first ranks report progress, http(s)://host:port. None: nobody asks."""
    progress_audience: str = "fengshenbang-progress"
    """Audience of the pods' tokens for it."""
    progress_certificate: str | None = None
    """ConfigMap with the ca.crt of an https progress_url, in each namespace."""
    serving_runtime: str = "fengshenbang"
    """Name of the ClusterServingRuntime of the chart."""
    storage_scheme: str = "fsb"
    """Prefix of the storage URIs that the chart's ClusterStorageContainer fetches: fsb+s3://."""
    certificates: str | None = None
    """ConfigMap with ca.crt of a private authority. None trusts the image's."""

    def pool(self, name: str) -> NodePool:
        """Return a node pool.

        Raises:
            UnknownNameError: The chart has none of that name.
        """
        if name not in self.pools:
            known = ", ".join(sorted(self.pools))
            raise UnknownNameError(f"node pool (known: {known})", name, self.pools)
        return self.pools[name]


def load_settings(path: str | None = None) -> OperatorSettings:
    """Read the settings file, by default the one that the environment names.

    Raises:
        ConfigError: It is missing or wrong; names the key.
    """
    place = path or os.environ.get(SETTINGS_VARIABLE)
    if not place:
        raise ConfigError(f"{SETTINGS_VARIABLE} is not set; the chart sets it")
    try:
        text = Path(place).read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{place}: {exc.strerror}") from None
    value: dict[str, Any] = parse_yaml_mapping(text, source=place)
    return parse(OperatorSettings, value, source=place)
