# SPDX-License-Identifier: Apache-2.0
"""Bring one custom resource nearer to what it asks for: observe, decide, apply, report.

Level-triggered and idempotent: whatever woke it, it looks at everything, and a restart at any
moment loses nothing because all memory is in `status`. What only one kind needs is in
`operators.running` (gangs) and `operators.served` (ServedModel).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from operators.cluster import Cluster, MissingKindError, RefusedError
from operators.metrics import Metrics
from operators.reporting import Reporter
from operators.running import GangReconciler
from operators.served.reconcile import ServedReconciler
from operators.settings import OperatorSettings
from pyfsb.errors import FsbError, StorageError
from pyfsb.resources import API_VERSION, KINDS
from pyfsb.resources.kinds import GangSpec, ServedModelSpec
from pyfsb.resources.status import Phase
from pyfsb.schema import parse

_SPECS: Final = {kind.kind: kind.spec for kind in KINDS}
_PROVIDERS: Final = (
    ("PyTorchJob", "install the Kubeflow Training Operator 1.9"),
    ("InferenceService", "install KServe 0.20 or newer"),
    ("Workflow", "install Argo Workflows, or leave stopsWith out"),
)
"""What a kind of somebody else's takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """Looks at resources of every kind; one for the whole operator."""

    cluster: Cluster
    settings: OperatorSettings
    metrics: Metrics
    clock: Callable[[], datetime]
    applied: dict[str, str] = field(default_factory=dict)
    """What `ServedReconciler` remembers."""

    def reconcile(self, kind: str, namespace: str, name: str) -> Phase | None:
        """Look at one resource and do what is needed next.

        Returns:
            Its phase, or None when it is gone.

        Raises:
            ClusterError: The API failed; call again later.
            StorageError: The model store failed; call again later.
        """
        resource = self.cluster.get(API_VERSION, kind, namespace, name)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            return None
        phase = (resource.get("status") or {}).get("phase")
        if issubclass(_SPECS[kind], GangSpec) and phase in (Phase.SUCCEEDED, Phase.FAILED):
            return Phase(phase)  # for good, whatever this version would think of its spec
        reporter = Reporter(cluster=self.cluster, clock=self.clock)
        try:
            spec = parse(_SPECS[kind], resource["spec"], source=f"{kind} {name}: spec")
            if isinstance(spec, GangSpec):
                gangs = GangReconciler(
                    cluster=self.cluster, settings=self.settings, metrics=self.metrics,
                    reporter=reporter,
                )  # fmt: skip
                return gangs.carry_on(resource, spec)
            assert isinstance(spec, ServedModelSpec)
            served = ServedReconciler(
                cluster=self.cluster, settings=self.settings, reporter=reporter,
                applied=self.applied,
            )  # fmt: skip
            return served.carry_on(resource, spec)
        except MissingKindError as exc:
            remedy = next((do for what, do in _PROVIDERS if what in str(exc)), "install it")
            return reporter.block(resource, MissingKindError(f"{exc}; {remedy}"))
        except RefusedError as exc:
            reporter.block(resource, exc)
            raise
        except StorageError as exc:
            reporter.hold(resource, exc)
            raise
        except FsbError as exc:
            if exc.is_retryable:
                raise
            return reporter.refuse(resource, exc)
