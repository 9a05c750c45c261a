# SPDX-License-Identifier: Apache-2.0
"""kopf's events → a queue of names → the reconciler.

Only low-level event handlers are used: no finalizers, no annotations, no state in kopf. Each event
of a custom resource, its job or its pods puts the resource's name into the queue once; a sweep puts
every name that the API server lists there again, so that nothing depends on an event having come.
What a sweep lists twice and no watch has told of means a watch that went stale: then the liveness
probe fails.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import kopf

from operators.builders.inferenceservice import SERVICE_LABEL
from operators.builders.pods import RUN_LABEL
from operators.metrics import Metrics
from pyfsb.errors import FsbError
from pyfsb.resources import GROUP, KINDS, VERSION
from pyfsb.resources.kinds import GangSpec
from pyfsb.resources.status import Phase

Key = tuple[str, str, str]
"""Kind, namespace and name."""
_GANG_KINDS: Final = tuple(kind.kind for kind in KINDS if issubclass(kind.spec, GangSpec))
RESYNC_SECONDS: Final = 20.0
_STALE_SWEEPS: Final = 6
"""Sweeps that may be missing, for an API server that is slow, before the probe fails."""
_NUM_WORKERS: Final = 8
_BACKOFF_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
_GANG_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED)
_ENDED: Final = (Phase.SUCCEEDED, Phase.FAILED, Phase.INVALID)
_PARTS: Final = (
    ("kubeflow.org", "v1", "pytorchjobs", RUN_LABEL, _GANG_KINDS),
    ("", "v1", "pods", RUN_LABEL, _GANG_KINDS),
    ("serving.kserve.io", "v1beta1", "inferenceservices", "", ("ServedModel",)),
    ("", "v1", "pods", SERVICE_LABEL, ("ServedModel",)),
)
"""What resources are made of: group, version, plural, label with the resource's name, kinds."""
_log = logging.getLogger(__name__)


class Queue:
    """Names to look at, each at most once at a time and never by two workers."""

    def __init__(
        self,
        reconcile: Callable[[str, str, str], Phase | None],
        metrics: Metrics,
        list_phases: Callable[[], Mapping[Key, str | None]] = dict,
    ) -> None:
        """Keep what looks at a name, and what lists every name there is, with its phase."""
        self._reconcile = reconcile
        self._metrics = metrics
        self._list_phases = list_phases
        self._listed: set[Key] = set()
        self._heard: set[Key] = set()
        self.missed: set[Key] = set()
        """Names that two sweeps found and no watch told of."""
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self.known: set[Key] = set()
        self.last_sweep = time.monotonic()

    def put(self, key: Key) -> None:
        """Ask for a look; a name in work is looked at once more afterwards."""
        self.known.add(key)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._queue.put_nowait(key)
        self._metrics.depth.set(self._queue.qsize())

    def hear(self, key: Key) -> None:
        """Ask for a look at what a watch told of."""
        self._heard.add(key)
        self.put(key)

    def lose(self, key: Key) -> None:
        """Ask for a last look at what a watch saw go: one in work would bring it back to mind."""
        self._heard.discard(key)
        self.put(key)

    def forget(self, key: Key) -> None:
        """Drop a name whose resource is gone."""
        self.known.discard(key)
        self._failures.pop(key, None)
        self._metrics.note_phase(key, None)

    async def work(self) -> None:
        """Look at names, one after another, for ever."""
        while True:
            key = await self._queue.get()
            self._waiting.discard(key)
            self._busy.add(key)
            try:
                await self._look(key)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.put(key)

    async def sweep(self) -> None:
        """Put every name there is into the queue now and then."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            await self.sweep_once()

    async def sweep_once(self) -> None:
        """Put every known or listed name into the queue, and note what no watch told of.

        Gangs that have ended need no look: there may be thousands of them.
        """
        phases: Mapping[Key, str | None] = {}
        try:
            phases = await asyncio.to_thread(self._list_phases)
            self._heard &= self.known | phases.keys()
        except FsbError as exc:
            _log.warning("cannot list the resources: %s", exc)
        listed = set(phases)
        self.missed = (listed & self._listed) - self._heard
        self._listed = listed
        self.last_sweep = time.monotonic()
        for key in tuple(self.known | listed):
            if not (key[0] in _GANG_KINDS and phases.get(key) in _GANG_ENDED):
                self.put(key)

    async def _look(self, key: Key) -> None:
        started = time.monotonic()
        try:
            phase = await asyncio.to_thread(self._reconcile, *key)
        except FsbError as exc:
            self._metrics.reconciles.labels(kind=key[0], result="error").inc()
            self._retry_later(key, exc)
            return
        except Exception:  # a bug must not stop the others
            _log.exception("cannot look at %s %s/%s", *key)
            self._metrics.reconciles.labels(kind=key[0], result="bug").inc()
            self._retry_later(key, None)
            return
        finally:
            self._metrics.seconds.labels(kind=key[0]).observe(time.monotonic() - started)
        self._metrics.reconciles.labels(kind=key[0], result="ok").inc()
        self._failures.pop(key, None)
        self._metrics.note_phase(key, phase)
        if phase is None:
            self.forget(key)

    def _retry_later(self, key: Key, error: FsbError | None) -> None:
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = _BACKOFF_SECONDS[min(count, len(_BACKOFF_SECONDS) - 1)]
        if error:
            _log.warning("%s %s/%s: %s; again in %.0f s", *key, error, delay)
        asyncio.get_running_loop().call_later(delay, self.put, key)


def login(**context: Any) -> kopf.ConnectionInfo | None:
    """Connect with the pod's service account, else with KUBECONFIG, as `Cluster` does."""
    return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)


class Watch:
    """kopf's side: starts and stops the workers, and turns events into names."""

    def __init__(self, make_queue: Callable[[], Queue], *, is_clusterwide: bool = True) -> None:
        """Keep what makes the queue, once kopf's loop runs.

        Args:
            make_queue: Called once.
            is_clusterwide: False: namespaces and definitions that come and go are not followed,
                which would take rights that the operator of a few namespaces does not have.
        """
        self._make_queue = make_queue
        self._is_clusterwide = is_clusterwide
        self._queue: Queue | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Register every handler."""
        kopf.on.login(registry=registry)(login)
        kopf.on.startup(registry=registry)(self.start)
        kopf.on.cleanup(registry=registry)(self.stop)
        kopf.on.probe(id="sweep_seconds_ago", registry=registry)(self.check)
        for kind in KINDS:
            handle = functools.partial(self.on_resource, kind.kind)
            kopf.on.event(GROUP, VERSION, kind.plural, id=kind.plural, registry=registry)(handle)
        for group, version, plural, label, kinds in _PARTS:
            marked: Any = {label: kopf.PRESENT} if label else None
            kopf.on.event(
                group, version, plural, labels=marked, id=f"{plural}-{kinds[0]}", registry=registry
            )(functools.partial(self.on_part, kinds, label))

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        """Bound every watch and start the workers."""
        settings.posting.enabled = False
        settings.watching.server_timeout = 240
        settings.watching.client_timeout = 300
        settings.watching.inactivity_timeout = 70
        settings.networking.request_timeout = 30
        settings.scanning.disabled = not self._is_clusterwide
        queue = self._queue = self._make_queue()
        self._tasks += [asyncio.create_task(queue.work()) for _ in range(_NUM_WORKERS)]
        self._tasks.append(asyncio.create_task(queue.sweep()))

    async def stop(self, **_: Any) -> None:
        """Stop the workers; what they were about is seen again by the next operator."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def check(self, **_: Any) -> float:
        """Say how long ago every name was last put into the queue.

        Raises:
            PermanentError: Too long ago, or a watch went stale; the probe fails.
        """
        assert self._queue
        age = time.monotonic() - self._queue.last_sweep
        if age > _STALE_SWEEPS * RESYNC_SECONDS:
            raise kopf.PermanentError(f"no sweep for {age:.0f} s")
        if self._queue.missed:
            raise kopf.PermanentError(f"no watch told of {sorted(self._queue.missed)[:3]}")
        return age

    async def on_resource(
        self, kind: str, *, namespace: Any, name: Any, type: Any, status: Any, **_: Any
    ) -> None:
        """Look at a custom resource that was made, changed or deleted."""
        assert self._queue
        if type == "DELETED":
            self._queue.lose((kind, namespace, name))
        else:
            self._queue.hear((kind, namespace, name))
        # What is served may wait for it; steps of an evaluation that goes on wake nobody.
        if kind == "Evaluation" and status.get("phase") in _ENDED:
            for other in tuple(self._queue.known):
                if other[:2] == ("ServedModel", namespace):
                    self._queue.put(other)

    async def on_part(
        self, kinds: Sequence[str], label: str, *, namespace: Any, name: Any, labels: Any, **_: Any
    ) -> None:
        """Look at the resource that a job, service or pod belongs to.

        Args:
            kinds: Kinds that have such parts.
            label: Label with the resource's name; none where it is the part's own.
            namespace: Namespace of both.
            name: Name of the part.
            labels: Labels of the part.
            _: What else kopf tells.
        """
        assert self._queue
        for kind in kinds:
            key = (kind, namespace, labels.get(label) if label else name)
            if key in self._queue.known:
                self._queue.put(key)
