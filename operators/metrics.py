# SPDX-License-Identifier: Apache-2.0
"""The operator's own metrics for Prometheus, named as controllers name theirs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pyfsb.resources import KINDS
from pyfsb.resources.status import GangStatus, Phase


class Metrics:
    """One set for the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register every series."""
        self.reconciles = Counter(
            "fsb_operator_reconcile_total", "Looks at a resource", ["kind", "result"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "fsb_operator_reconcile_seconds", "Seconds of a look", ["kind"], registry=registry
        )
        self.depth = Gauge(
            "fsb_operator_queue_depth", "Resources waiting to be looked at", registry=registry
        )
        self.restarts = Counter(
            "fsb_operator_gang_restarts_total", "Restarts of whole gangs", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.failures = Counter(
            "fsb_operator_failures_total", "Gangs that failed for good", ["kind"],
            registry=registry,
        )  # fmt: skip
        for kind in KINDS:
            if issubclass(kind.status, GangStatus):  # from nought, or Prometheus misses the first
                self.restarts.labels(kind=kind.kind)
                self.failures.labels(kind=kind.kind)
        self._silences = Gauge(
            "fsb_operator_silent_seconds", "Since a running gang told of its progress, or runs",
            ["kind", "namespace", "name"], registry=registry,
        )  # fmt: skip
        self._silent: set[tuple[str, str, str]] = set()
        self._resources = Gauge(
            "fsb_operator_resources", "Resources by phase", ["kind", "phase"], registry=registry
        )
        self._phases: dict[tuple[str, str, str], Phase] = {}

    def note_phase(self, key: tuple[str, str, str], phase: Phase | None) -> None:
        """Count a resource under its phase; None: it is gone."""
        if phase is not Phase.RUNNING:
            self.note_silence(key, None)
        before = self._phases.pop(key, None)
        if before is not None:
            self._resources.labels(kind=key[0], phase=before.value).dec()
        if phase is not None:
            self._phases[key] = phase
            self._resources.labels(kind=key[0], phase=phase.value).inc()

    def note_silence(self, key: tuple[str, str, str], seconds: float | None) -> None:
        """Note how long a running gang has told nothing; None: it does not run."""
        if seconds is not None:
            self._silent.add(key)
            self._silences.labels(*key).set(seconds)
        elif key in self._silent:
            self._silent.discard(key)
            self._silences.remove(*key)
