# SPDX-License-Identifier: Apache-2.0
"""What is told about a resource: its status, and an event when its phase changes.

A status is written only when it differs; conditions keep the time at which they changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from operators.cluster import Cluster
from pyfsb.errors import ClusterError, FsbError
from pyfsb.resources import KINDS
from pyfsb.resources.status import BaseStatus, Condition, Phase
from pyfsb.schema import Json, parse

_STATUSES: Final = {kind.kind: kind.status for kind in KINDS}
_BAD: Final = (Phase.FAILED, Phase.BLOCKED, Phase.RESTARTING, Phase.INVALID)
S = TypeVar("S", bound=BaseStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Writes statuses and events."""

    cluster: Cluster
    clock: Callable[[], datetime]

    def refuse(self, resource: Json, error: FsbError) -> Phase:
        """Report a resource that cannot be carried out as it stands."""
        return self._stop(resource, Phase.INVALID, error, is_valid=False)

    def block(self, resource: Json, error: FsbError) -> Phase:
        """Report a resource that is right, but that the cluster does not let through now."""
        return self._stop(resource, Phase.BLOCKED, error, is_valid=None)

    def hold(self, resource: Json, error: FsbError) -> None:
        """Report a store that is away; what was reached before is kept."""
        phase = read_status(resource).phase
        waits = phase in (None, Phase.PENDING, Phase.INVALID)
        with contextlib.suppress(ClusterError):
            self._stop(resource, Phase.PENDING if waits else phase, error, is_valid=None)

    def write(self, resource: Json, before: S, after: S, *, reason: str, message: str) -> None:
        """Write a status that changed, with an event when its phase did."""
        if after == before:
            return
        self.patch(resource, after)
        if after.phase is not before.phase:
            self.cluster.tell(
                resource, reason=reason, message=message or str(after.phase),
                is_warning=after.phase in _BAD,
            )  # fmt: skip

    def patch(self, resource: Json, status: BaseStatus) -> None:
        """Write a status."""
        metadata = resource["metadata"]
        manifest: Json = dict(status.to_manifest())
        # A merge keeps what is not named: what the status had and has no more is taken away.
        manifest |= {key: None for key in resource.get("status") or {} if key not in manifest}
        manifest.pop("progress", None)  # another writer's: what was read may be old by now
        self.cluster.patch_status(
            resource["kind"], metadata["namespace"], metadata["name"], manifest
        )

    def _stop(
        self, resource: Json, phase: Phase | None, error: FsbError, *, is_valid: bool | None
    ) -> Phase:
        before = read_status(resource)
        generation = resource["metadata"]["generation"]
        reason, message = type(error).__name__.removeprefix("_"), str(error)
        condition = make_condition(
            before, type_="Valid", is_true=is_valid, reason=reason, message=message,
            now=self.clock(), generation=generation,
        )  # fmt: skip
        after = before.model_copy(
            update={
                "phase": phase, "message": message, "observed_generation": generation,
                "conditions": merge_conditions(before.conditions, condition),
            }
        )  # fmt: skip
        if after != before:
            self.patch(resource, after)
            self.cluster.tell(resource, reason=reason, message=message, is_warning=True)
        return Phase(str(after.phase))


def read_status(resource: Json) -> BaseStatus:
    """Return the status; fields of another version's operator that cannot be read are left out."""
    kind = _STATUSES[resource["kind"]]
    found = resource.get("status") or {}
    try:
        return parse(kind, found, source="status")
    except FsbError:
        return parse(kind, _readable(kind, found), source="status")


def _readable(kind: type[BaseStatus], status: Json) -> Json:
    """Return the fields that can be read: without its phase a run would begin anew."""
    kept: Json = {}
    for key, value in status.items():
        with contextlib.suppress(FsbError):
            parse(kind, {key: value}, source="status")
            kept[key] = value
    return kept


def make_condition(
    before: BaseStatus, *, type_: str, is_true: bool | None, reason: str, message: str,
    now: datetime, generation: int,
) -> Condition:  # fmt: skip
    """Return a condition; its time moves only when its status does."""
    status = "Unknown" if is_true is None else str(is_true)
    old = next((item for item in before.conditions if item.type == type_), None)
    moment = old.last_transition_time if old and old.status == status else str(to_text(now))
    return Condition(
        type=type_, status=status, reason=reason, message=message,  # type: ignore[arg-type]
        last_transition_time=moment, observed_generation=generation,
    )  # fmt: skip


def merge_conditions(old: tuple[Condition, ...], *new: Condition) -> tuple[Condition, ...]:
    """Return conditions with some replaced, each type once."""
    names = {condition.type for condition in new}
    return (*(item for item in old if item.type not in names), *new)


def to_text(moment: datetime | None) -> str | None:
    """Return a moment as it stands in a status."""
    return moment.isoformat(timespec="seconds") if moment else None


def to_moment(text: str | None) -> datetime | None:
    """Undo `to_text`."""
    return datetime.fromisoformat(text) if text else None
