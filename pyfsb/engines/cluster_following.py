# SPDX-License-Identifier: Apache-2.0
"""Following one custom resource from its start to its end, through outages of the API server.

Called by the cluster engine. Polls: a poll needs no state, and a missed event cannot be missed.
What it sees goes to `notify` as plain values; the resource itself is never changed here.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from pyfsb.engines.cluster_client import ClusterClient, resource_path
from pyfsb.errors import (
    EXIT_CONFIG,
    ClusterError,
    ConfigError,
    DataError,
    FsbError,
    NotReadyError,
)
from pyfsb.resources import API_VERSION, KINDS
from pyfsb.resources.status import BaseStatus, Condition, GangStatus, Phase
from pyfsb.schema import Json, parse

POLL_SECONDS: Final = 1.5
OUTAGE_SECONDS: Final = 600.0
"""An API server that is away for longer ends the following, not the work."""
_LONGEST_PAUSE_SECONDS: Final = 15.0
_UNSEEN_SECONDS: Final = 30.0
"""Without a word of the operator for so long, nobody seems to look after the resource."""
_GONE_SECONDS: Final = 180.0
_SHORTEST_GONE_SECONDS: Final = 2.0
RUN_LABEL: Final = "fengshenbang.io/run"
_EXIT_CODE: Final = re.compile(r"ended with exit code (\d+)")
_RETRYABLE: Final = ("RestartBudgetExceeded",)
_STATUSES: Final = {kind.kind: kind.status for kind in KINDS}
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)
_UNDER_WAY: Final = (Phase.STARTING, Phase.RUNNING, Phase.RESTARTING, Phase.SUSPENDED)
_WIDTH: Final = ("pool", "nodes", "processesPerNode", "image")
"""Fields of a gang beside its run: another value under way would change it for all who follow."""
T = TypeVar("T")
Notify = Callable[[Json], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one look at a resource tells."""

    kind: str
    namespace: str
    name: str
    status: BaseStatus
    is_current: bool
    """The operator has looked at the spec as it is now."""

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self.status.phase or Phase.PENDING

    @property
    def place(self) -> str:
        """Kind, namespace and name in words."""
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def how_to_end(self) -> str:
        """The command that ends the work."""
        return end_command(self.kind, self.name, self.namespace)

    def condition(self, type_: str) -> Condition | None:
        """Return a condition by its type."""
        return next((item for item in self.status.conditions if item.type == type_), None)

    def to_json(self) -> Json:
        """Return what is worth telling, in flat plain values; nothing for None."""
        told: Json = {
            "kind": self.kind, "namespace": self.namespace, "name": self.name,
            "phase": self.phase.value, "message": self.status.message or None,
        }  # fmt: skip
        if isinstance(self.status, GangStatus):
            told["restarts"] = self.status.restarts or None
            if self.status.progress:
                told |= self.status.progress.model_dump(exclude={"reported_at", "percentage"})
        return {key: value for key, value in told.items() if value is not None}


def end_command(kind: str, name: str, namespace: str) -> str:
    """Return the command that ends a resource's work; a service cannot be suspended."""
    flag = " --delete" if kind == "ServedModel" else ""
    return f"fsb stop {name}{flag} -n {namespace}"


def read_view(resource: Json) -> View:
    """Return what a resource's status tells; what cannot be read counts as not written yet."""
    kind, metadata = resource["kind"], resource["metadata"]
    schema = _STATUSES[kind]
    try:
        status = parse(schema, resource.get("status") or {}, source="status")
    except ConfigError:  # of a newer operator: what is common to all versions is enough
        known = resource["status"]
        status = schema(
            phase=known.get("phase") if known.get("phase") in list(Phase) else None,
            message=str(known.get("message") or ""),
        )
    seen = status.observed_generation
    return View(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        status=status,
        is_current=seen is not None and seen >= metadata.get("generation", 0),
    )


def patiently(action: Callable[[], T], *, limit_seconds: float = OUTAGE_SECONDS) -> T:
    """Do something with the cluster, again and again while it cannot be reached.

    Raises:
        ClusterError: It was away for longer than the limit.
    """
    started, pause = time.monotonic(), 1.0
    while True:
        try:
            return action()
        except ClusterError as exc:
            away = time.monotonic() - started
            if away > limit_seconds:
                raise ClusterError(
                    f"{exc}; tried for {away:.0f} s. What runs in the cluster goes on; the same "
                    "command follows it again"
                ) from None
            if pause == 1.0:
                _log.warning("%s; trying again for %.0f s", exc, limit_seconds)
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads callers
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def attach(
    client: ClusterClient, manifest: Json, *, is_complete: Callable[[], bool] = lambda: False
) -> View:
    """Make sure that a resource is there and under way; pods that run keep pool and width.

    Args:
        client: The cluster.
        manifest: The resource.
        is_complete: Tells of one that succeeded whether its result is still there.

    Raises:
        ConfigError: The API server refuses it, or it is there with another run.
        NotReadyError: Another resource of the kind writes to the same output.
    """
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    path = resource_path(kind, client.namespace, name)
    if "run" in manifest["spec"]:
        _check_alone(client, manifest)
    found = patiently(lambda: client.get(path))
    if found and "run" in manifest["spec"]:
        view = read_view(found)
        if view.phase in _UNDER_WAY:
            manifest = _keep_width(manifest, found, view)
        is_over = view.phase in (*_ENDED, Phase.INVALID)
        if is_over and not (view.phase is Phase.SUCCEEDED and is_complete()):
            _log.info("%s ended as %s before; starting it again", view.place, view.phase)
            _remove(client, path, found)
    try:
        applied = patiently(lambda: client.apply(path, manifest))
    except ConfigError as exc:
        if "run is immutable" in str(exc):
            raise ConfigError(
                f"{kind} {client.namespace}/{name} is under way with other settings; wait for it, "
                f"stop it (`fsb stop {name} --delete`), or choose another name or output"
            ) from None
        raise
    return read_view(applied)


def _check_alone(client: ClusterClient, manifest: Json) -> None:
    """Refuse a second gang on one output: other settings give another name, not another place."""
    kind, output = manifest["kind"], manifest["spec"]["run"]["output"]
    for item in patiently(lambda: client.list_objects(resource_path(kind, client.namespace))):
        view = read_view({**item, "kind": kind})
        place = (item["spec"].get("run") or {}).get("output", "")
        is_other = view.name != manifest["metadata"]["name"]
        is_over = view.phase in (*_ENDED, Phase.INVALID)
        if is_other and not is_over and place.rstrip("/") == output.rstrip("/"):
            raise NotReadyError(
                f"{view.place} is {view.phase} and writes to {output} already; wait for it, end it "
                f"(`fsb stop {view.name} --delete -n {view.namespace}`), or choose another output"
            )


def _keep_width(manifest: Json, found: Json, view: View) -> Json:
    """Return the manifest with what its pods run with now, and say what was not changed."""
    wanted = manifest["spec"]
    now = {key: found["spec"][key] for key in _WIDTH if found["spec"].get(key) is not None}
    differing = [
        f"{key} {value}, not {wanted[key]}"
        for key, value in now.items()
        if value != wanted.get(key, value)
    ]
    if differing:
        _log.warning(
            "%s is %s with %s: it stays so. `fsb stop %s --delete` first, to change it",
            view.place, view.phase, "; ".join(differing), view.name,
        )  # fmt: skip
    return {**manifest, "spec": {**wanted, **now}}


def follow(
    client: ClusterClient,
    kind: str,
    name: str,
    *,
    notify: Notify,
    until: Callable[[View], bool] | None = None,
    blocked_limit_seconds: float | None = None,
    limit_seconds: float | None = None,
    while_running: Callable[[], None] | None = None,
) -> View:
    """Watch a resource until it is what it should become.

    Args:
        client: The cluster.
        kind: Its kind.
        name: Its name.
        notify: Gets what changed, as `View.to_json` gives it.
        until: When it is; None waits for Succeeded.
        blocked_limit_seconds: How long to wait while it cannot go on; None for ever.
        limit_seconds: How long to wait in all; None for ever.
        while_running: Called at every look while pods run, for instance to pass logs on.

    Raises:
        ConfigError: The operator refuses it.
        DataError: It failed; carries the last log lines.
        NotReadyError: It did not get there in time.
        ClusterError: The API server was away for too long, or somebody deleted it.
    """
    path = resource_path(kind, client.namespace, name)
    clock = _Clock(limit_seconds, blocked_limit_seconds)
    told: Json = {}
    while True:
        resource = patiently(lambda: client.get(path))
        if resource is None:
            raise ClusterError(
                f"{kind} {client.namespace}/{name} was deleted meanwhile; the same command starts "
                "it again"
            )
        view = read_view(resource)
        news = clock.comment(view)
        if news != told:
            notify(news)
            told = news
        if while_running and view.phase in (Phase.RUNNING, *_ENDED):
            while_running()
        if _is_bad_end(view):
            raise explain_end(view)
        if until(view) if until else view.phase is Phase.SUCCEEDED:
            return view
        clock.check(view)
        time.sleep(POLL_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads callers


def _is_bad_end(view: View) -> bool:
    """Say whether it will get no further: a gang's failure is final, else the spec counts."""
    if view.phase is Phase.FAILED and isinstance(view.status, GangStatus):
        return True
    return view.phase in (Phase.FAILED, Phase.INVALID) and view.is_current


def explain_end(view: View) -> FsbError:
    """Return the error that a resource's bad end stands for, with the condition's own words."""
    condition = view.condition("Valid" if view.phase is Phase.INVALID else "Succeeded")
    words = (condition.message if condition else "") or view.status.message or "no reason given"
    text = f"{view.place}: {words}"
    if view.phase is Phase.INVALID:
        return ConfigError(text)
    if condition and condition.reason in _RETRYABLE:
        return NotReadyError(text)
    code = _EXIT_CODE.search(words)
    return ConfigError(text) if code and int(code[1]) == EXIT_CONFIG else DataError(text)


class _Clock:
    """How long a resource has been waiting, and for what."""

    def __init__(self, limit: float | None, blocked_limit: float | None) -> None:
        self._limit, self._blocked_limit = limit, blocked_limit
        self._started = time.monotonic()
        self._blocked_since: float | None = None

    def comment(self, view: View) -> Json:
        """Return what to tell about a resource; one that nobody looks at is said to be so."""
        told = view.to_json()
        is_unseen = view.status.phase is None and not view.status.conditions
        if is_unseen and time.monotonic() - self._started > _UNSEEN_SECONDS:
            told["message"] = "no operator has looked at it yet; `fsb doctor cluster` tells why"
        if view.phase is Phase.SUSPENDED:
            words = f"{told.get('message', 'stopped')}; `fsb resume {view.name}` goes on"
            told["message"] = words
        return told

    def check(self, view: View) -> None:
        """Raise when it has waited for longer than allowed."""
        now = time.monotonic()
        if view.phase not in (Phase.BLOCKED, Phase.PENDING):
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = now
        words = self.comment(view).get("message", "no reason given")
        waited = now - (self._blocked_since or now)
        if self._blocked_limit is not None and waited > self._blocked_limit:
            raise NotReadyError(
                f"{view.place} is {view.phase} for {waited:.0f} s: {words}. It goes on by itself "
                f"once that is solved; `{view.how_to_end}` ends it"
            )
        if self._limit is not None and now - self._started > self._limit:
            raise NotReadyError(
                f"{view.place} is still {view.phase} after {self._limit:.0f} s: {words}"
            )


def _remove(client: ClusterClient, path: str, resource: Json) -> None:
    """Delete a resource and wait until its pods are gone: the next ones have the same names."""
    namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
    uid = resource["metadata"]["uid"]
    patiently(lambda: client.delete(path, uid))
    pods = f"/api/v1/namespaces/{namespace}/pods"
    started = time.monotonic()

    def is_there() -> bool:
        now = client.get(path)
        is_old = now is not None and now["metadata"]["uid"] == uid
        return is_old or bool(client.list_objects(pods, labels=f"{RUN_LABEL}={name}"))

    while patiently(is_there) or time.monotonic() - started < _SHORTEST_GONE_SECONDS:
        if time.monotonic() - started > _GONE_SECONDS:
            raise NotReadyError(
                f"pods of the earlier {resource['kind']} {namespace}/{name} are still ending "
                f"after {_GONE_SECONDS:.0f} s; run the same command again"
            )
        time.sleep(POLL_SECONDS)


def check_installed(client: ClusterClient) -> None:
    """Check that the cluster is there and knows our resources, before anything is uploaded.

    Raises:
        ConfigError: It does not know them.
        ClusterError: It cannot be reached.
    """
    if client.get(f"/apis/{API_VERSION}") is None:
        raise ConfigError(
            "the cluster does not know DataPreparation, TrainingRun, Evaluation and ServedModel: "
            "the chart is not installed; `fsb doctor cluster` tells what is missing"
        )
