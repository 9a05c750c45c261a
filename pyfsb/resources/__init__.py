# SPDX-License-Identifier: Apache-2.0
"""Schemas of the custom resources, from which their CRDs are made; pure.

Nothing here talks to a cluster. The operator and its CRDs use the same classes, so that a field
exists in one place.
"""

from __future__ import annotations

from pyfsb.resources.kinds import (
    API_VERSION,
    GROUP,
    KINDS,
    VERSION,
    DataPreparationResource,
    EvaluationResource,
    Kind,
    ServedModelResource,
    TrainingRunResource,
)
from pyfsb.resources.status import (
    Condition,
    DataPreparationStatus,
    EvaluationStatus,
    ServedModelStatus,
    TrainingRunStatus,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "VERSION",
    "Condition",
    "DataPreparationResource",
    "DataPreparationStatus",
    "EvaluationResource",
    "EvaluationStatus",
    "Kind",
    "ServedModelResource",
    "ServedModelStatus",
    "TrainingRunResource",
    "TrainingRunStatus",
]
