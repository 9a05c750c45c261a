# SPDX-License-Identifier: Apache-2.0
"""A service as an InferenceService of KServe in Standard mode; pure.

How the server runs (its image, probes, volumes and drain) is the chart's ServingRuntime; here
stands what differs from one model to the next. Built as plain values: importing KServe's package
costs its whole server. Fields are tested against the schema of the installed CRD, and the API
server refuses one that it does not know.

Source: serving.kserve.io/v1beta1 InferenceService, KServe 0.20.
"""

from __future__ import annotations

from typing import Final

from operators.gang import CONTAINER_UID
from operators.served.plan import GRACE_SECONDS, Service
from operators.settings import OperatorSettings
from pyfsb.schema import Json

SERVICE_LABEL: Final = "serving.kserve.io/inferenceservice"
"""Label that KServe gives the pods of a service."""
CONTAINER: Final = "kserve-container"
CHECKPOINT_ANNOTATION: Final = "fengshenbang.io/checkpoint"
DIGEST_ANNOTATION: Final = "fengshenbang.io/digest"
VERSION_ANNOTATION: Final = "fengshenbang.io/version"
MODEL_FORMAT: Final = "fengshenbang"


_NO_SIDECAR: Final = {"sidecar.istio.io/inject": "false"}


def build_inference_service(service: Service, settings: OperatorSettings) -> Json:
    """Return the manifest of a service."""
    scale = service.scale
    annotations = _annotations(service)
    predictor: Json = {
        "annotations": {**_NO_SIDECAR, **service.pool.annotations, **annotations},
        "model": _model(service, settings),
        "minReplicas": scale.min_replicas,
        "maxReplicas": scale.max_replicas,
        "scaleMetric": "cpu",
        "scaleTarget": scale.target_cpu_percent,
        # A new copy answers before an old one goes.
        "deploymentStrategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "serviceAccountName": service.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": CONTAINER_UID, "runAsGroup": CONTAINER_UID,
            "fsGroup": CONTAINER_UID, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "topologySpreadConstraints": [_spread(service)],
        **_placement(service, settings),
        **_shared_memory(service),
    }  # fmt: skip
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "hpa",
                **annotations,
            },
        },
        "spec": {"predictor": predictor},
    }


def _annotations(service: Service) -> dict[str, str]:
    """Return what the service and each of its pods say about what they serve."""
    checkpoint = service.checkpoint
    return {
        CHECKPOINT_ANNOTATION: checkpoint.uri,
        DIGEST_ANNOTATION: checkpoint.digest or "",
        VERSION_ANNOTATION: str(checkpoint.version or ""),
    }


def _model(service: Service, settings: OperatorSettings) -> Json:
    """Return the part of the container that is not the runtime's."""
    environment, image = service.environment, {}
    if service.image:
        image = {"image": service.image, "imagePullPolicy": settings.pull_policy}
    mounts: Json = {}
    if service.shared_memory:
        mounts = {"volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}  # noqa: S108
    return {
        "modelFormat": {"name": MODEL_FORMAT},
        "runtime": service.runtime,
        "protocolVersion": "v2",
        "storageUri": service.storage_uri,
        **image,
        "args": list(service.arguments),
        "env": [{"name": key, "value": value} for key, value in sorted(environment.items())],
        "resources": {"limits": dict(service.limits), "requests": dict(service.limits)},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
        },
        **mounts,
    }  # fmt: skip


def _shared_memory(service: Service) -> Json:
    if not service.shared_memory:
        return {}
    memory = {"medium": "Memory", "sizeLimit": service.shared_memory}
    return {"volumes": [{"name": "shm", "emptyDir": memory}]}


def _placement(service: Service, settings: OperatorSettings) -> Json:
    """Return where the pods run, each field only where it says something."""
    pool = service.pool
    fields: Json = {
        "nodeSelector": dict(pool.node_selector),
        "tolerations": list(pool.tolerations),
        "priorityClassName": service.priority_class,
        "runtimeClassName": pool.runtime_class,
        "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
    }
    return {key: value for key, value in fields.items() if value}


def _spread(service: Service) -> Json:
    """Spread the copies: with one node not all of them are gone."""
    return {
        "maxSkew": 1,
        "topologyKey": service.pool.spread_key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {SERVICE_LABEL: service.name}},
    }
