# SPDX-License-Identifier: Apache-2.0
"""Environment variables of launcher pods: which ones pipelines set, and where they come from.

Read by `pipelines.tasks` (which sets them), `pipelines.passthrough` (which keeps them out of the
pods that a launcher starts) and `pipelines.stopping`.
"""

from __future__ import annotations

import os
from typing import Final

CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "FSB_S3_ADDRESSING",
)
"""Keys of the secret with the object store's keys; each one is a variable of the same name."""
SETTINGS_MAP: Final = "fengshenbang-pipelines"
"""ConfigMap of the chart with further settings; may be missing."""
SETTINGS: Final = ("FSB_MODEL_STORE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
"""Keys of that ConfigMap; each one is a variable of the same name. Endpoint and region count where
the secret has none: a name that stood in both would make a pod that Kubernetes refuses."""
POD_NAME: Final = "FSB_POD_NAME"
NAMESPACE: Final = "FSB_NAMESPACE"
FIELDS: Final = {POD_NAME: "metadata.name", NAMESPACE: "metadata.namespace"}
"""Variables that hold a field of the launcher's own pod."""
OWN: Final = frozenset({*CREDENTIALS, *SETTINGS, *FIELDS})
"""Every variable that a launcher has for itself."""


def store_root() -> str:
    """Return the folder on the store that the forms' defaults lie in; read when compiling."""
    return (os.environ.get("FSB_STORE_ROOT") or "s3://fengshenbang").rstrip("/")


def credentials_secret() -> str:
    """Return the name of the secret with the object store's keys; read when compiling."""
    return os.environ.get("FSB_CREDENTIALS_SECRET") or "fengshenbang-s3"


def pull_secrets() -> list[str]:
    """Return the names of the image pull secrets; read when compiling."""
    return os.environ.get("FSB_IMAGE_PULL_SECRETS", "").replace(",", " ").split()
