# SPDX-License-Identifier: Apache-2.0
"""The workflow that started a resource and takes it with it when it ends."""

from __future__ import annotations

from typing import Final

from operators.cluster import Cluster
from pyfsb.resources.kinds import Stopper

_WORKFLOW: Final = ("argoproj.io/v1alpha1", "Workflow")
_ENDED: Final = ("Succeeded", "Failed", "Error")


def has_stopper_ended(cluster: Cluster, stopper: Stopper | None, namespace: str) -> bool:
    """Say whether the workflow that a resource belongs to is gone or has ended."""
    if stopper is None:
        return False
    flow = cluster.get(*_WORKFLOW, namespace, stopper.workflow)
    if flow is None or flow["metadata"]["uid"] != stopper.uid:
        return True
    return (flow.get("status") or {}).get("phase") in _ENDED
