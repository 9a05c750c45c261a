# SPDX-License-Identifier: Apache-2.0
"""`python -m operators`: run the operator until SIGTERM, one replica at a time.

Settings come from the file that `FSB_OPERATOR_SETTINGS` names; in a pod the service account is
used, elsewhere KUBECONFIG.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime

import kopf
from prometheus_client import CollectorRegistry, start_http_server

from operators.cluster import Cluster
from operators.handlers import Key, Queue, Watch
from operators.metrics import Metrics
from operators.reconcile import Reconciler
from operators.settings import load_settings
from pyfsb.processes import run_stage_main
from pyfsb.resources import API_VERSION, KINDS


def main() -> int:
    """Run the operator; returns when told to stop."""
    parser = argparse.ArgumentParser(prog="python -m operators", description=__doc__)
    parser.add_argument("--settings", help="settings file; default: FSB_OPERATOR_SETTINGS")
    parser.add_argument("--metrics-port", type=int, default=9090, help="0 serves no metrics")
    parser.add_argument("--liveness", help="URL of the probe, e.g. http://0.0.0.0:8081/healthz")
    arguments = parser.parse_args()
    settings = load_settings(arguments.settings)
    prometheus = CollectorRegistry()
    metrics = Metrics(prometheus)
    cluster = Cluster()
    reconciler = Reconciler(
        cluster=cluster, settings=settings, metrics=metrics, clock=lambda: datetime.now(UTC)
    )
    if arguments.metrics_port:
        start_http_server(arguments.metrics_port, registry=prometheus)
    registry = kopf.OperatorRegistry()
    namespaces = settings.namespaces

    def list_phases() -> dict[Key, str | None]:
        return {
            (kind.kind, *name): phase
            for kind in KINDS
            for name, phase in cluster.list_phases(API_VERSION, kind.kind, namespaces).items()
        }

    watch = Watch(
        lambda: Queue(reconciler.reconcile, metrics, list_phases), is_clusterwide=not namespaces
    )
    watch.register(registry)
    asyncio.run(
        kopf.operator(
            registry=registry,
            namespaces=list(namespaces),
            clusterwide=not namespaces,
            liveness_endpoint=arguments.liveness,
            standalone=True,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
