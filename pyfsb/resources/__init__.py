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
    EvaluationResource,
    Kind,
    TrainingRunResource,
)
from pyfsb.resources.status import Condition, EvaluationStatus, TrainingRunStatus

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "VERSION",
    "Condition",
    "EvaluationResource",
    "EvaluationStatus",
    "Kind",
    "TrainingRunResource",
    "TrainingRunStatus",
]
