# SPDX-License-Identifier: Apache-2.0
"""What a pipeline's author set on a launcher task, as settings of the pods that it starts.

KFP hands the settings of a task with `task_config_passthroughs` to the component as a
`dsl.TaskConfig`; `kfp.local` hands over one with nothing in it. Pure functions; never imports kfp.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from pipelines.environment import OWN
from pyfsb.errors import ConfigError
from pyfsb.resources.kinds import GangResources, PodOverrides
from pyfsb.schema import Json, parse

_FIELDS: Final = {
    "node_selector": "nodeSelector",
    "tolerations": "tolerations",
    "affinity": "affinity",
    "volumes": "volumes",
    "volume_mounts": "volumeMounts",
}
_PLAIN: Final = ("cpu", "memory")
_SOURCE: Final = "the task's settings"


class TaskConfig(Protocol):
    """The parts of `kfp.dsl.TaskConfig`, each in the words of a pod spec or None."""

    affinity: dict[str, Any] | None
    tolerations: list[dict[str, Any]] | None
    node_selector: dict[str, str] | None
    env: list[dict[str, Any]] | None
    volumes: list[dict[str, Any]] | None
    volume_mounts: list[dict[str, Any]] | None
    resources: dict[str, Any] | None


def pod_overrides(config: TaskConfig | None) -> Json:
    """Return `spec.pod` of a custom resource: selectors, volumes and variables.

    The launcher's own variables are left out: the operator gives the pods theirs.

    Raises:
        ConfigError: A value does not have the form that a pod spec asks for.
    """
    if config is None:
        return {}
    found = {key: getattr(config, name) for name, key in _FIELDS.items()}
    found["env"] = [item for item in config.env or () if item.get("name") not in OWN]
    given = {key: value for key, value in found.items() if value}
    parse(PodOverrides, given, source=_SOURCE)
    return given


def gang_resources(config: TaskConfig | None) -> Json:
    """Return `spec.resources` of a custom resource: limits count before requests.

    Raises:
        ConfigError: It asks for two kinds of devices, or for half a device.
    """
    asked = (config.resources if config else None) or {}
    values = {**(asked.get("requests") or {}), **(asked.get("limits") or {})}
    given: Json = {name: str(values[name]) for name in _PLAIN if values.get(name)}
    devices = sorted(name for name in values if "/" in name)
    if len(devices) > 1:
        raise ConfigError(f"{_SOURCE} ask for {' and '.join(devices)}; expected one kind of device")
    if devices:
        given["devices"] = _whole(values[devices[0]], devices[0])
    parse(GangResources, given, source=_SOURCE)
    return given


def _whole(value: object, name: str) -> int:
    text = str(value)
    if not text.isdecimal():
        raise ConfigError(f"{_SOURCE}: {name} = {text!r}; expected a whole number")
    return int(text)
