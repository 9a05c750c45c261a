# SPDX-License-Identifier: Apache-2.0
"""The Argo Workflow that a launcher's pod belongs to: what ends with it, and which try this is.

KFP ends a launcher's container within moments and asks nobody, so the custom resource names the
workflow and the operator stops it (`spec.stopsWith`). Called by `pipelines.launching`.
"""

from __future__ import annotations

import os
import re
from typing import Final

from pipelines.environment import POD_NAME
from pyfsb.engines.cluster_client import ClusterClient
from pyfsb.errors import ClusterError
from pyfsb.schema import Json

_NODE_NAME: Final = "workflows.argoproj.io/node-name"
_TRY: Final = re.compile(r"\((\d+)\)$")


def read_own_pod(cluster: ClusterClient) -> Json | None:
    """Return the pod that this process runs in; None outside a KFP task.

    Args:
        cluster: Connection with the right to get pods in its namespace.

    Raises:
        ConfigError: This service account may not get pods.
        ClusterError: The API server failed, or does not show this pod.
    """
    name = os.environ.get(POD_NAME)
    if not name:
        return None
    pod = cluster.get(f"/api/v1/namespaces/{cluster.namespace}/pods/{name}")
    if pod is None:
        raise ClusterError(f"namespace {cluster.namespace} has no pod {name}, which this is")
    return pod


def find_stopper(pod: Json | None) -> Json | None:
    """Return name and uid of the workflow that owns a pod, as `spec.stopsWith` has them."""
    for owner in (pod or {}).get("metadata", {}).get("ownerReferences") or ():
        if owner["kind"] == "Workflow" and owner["apiVersion"].startswith("argoproj.io/"):
            return {"workflow": owner["name"], "uid": owner["uid"]}
    return None


def is_repeated(pod: Json | None) -> bool:
    """Say whether Argo started this pod because an earlier try of the same task failed.

    Argo numbers the tries of a node from 0 at the end of its name. Somebody who presses Retry in
    the UI starts at 0 again.
    """
    annotations = (pod or {}).get("metadata", {}).get("annotations") or {}
    number = _TRY.search(annotations.get(_NODE_NAME, ""))
    return number is not None and int(number[1]) > 0
