# SPDX-License-Identifier: Apache-2.0
"""The operator's own metrics for Prometheus, named as controllers name theirs."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


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
