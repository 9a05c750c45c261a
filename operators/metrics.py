# SPDX-License-Identifier: Apache-2.0
"""The operator's own metrics for Prometheus, named as controllers name theirs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pyfsb.resources.status import Phase


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
        self._resources = Gauge(
            "fsb_operator_resources", "Resources by phase", ["kind", "phase"], registry=registry
        )
        self._phases: dict[tuple[str, str, str], Phase] = {}

    def note_phase(self, key: tuple[str, str, str], phase: Phase | None) -> None:
        """Count a resource under its phase; None: it is gone."""
        before = self._phases.pop(key, None)
        if before is not None:
            self._resources.labels(kind=key[0], phase=before.value).dec()
        if phase is not None:
            self._phases[key] = phase
            self._resources.labels(kind=key[0], phase=phase.value).inc()
