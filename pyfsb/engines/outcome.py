# SPDX-License-Identifier: Apache-2.0
"""What a stage that ended well tells the operator: its pod's termination message.

A pod's last word reaches the operator through the API, so the operator needs no keys of the store.
Called by the stages' `__main__`; does nothing outside a pod.
"""

from __future__ import annotations

import json
import os

from pyfsb import records
from pyfsb.processes import leave_message
from pyfsb.records import EvalReport
from pyfsb.schema import Json

_REASON_LIMIT = 500
"""Kubernetes keeps 4,096 bytes of a termination message."""


def report_outcome(folder: str) -> None:
    """Write the summary of a stage's record to `FSB_TERMINATION_LOG`, if that is set.

    Args:
        folder: Folder or s3:// prefix of the stage.

    Raises:
        DataError: There is no usable record.
    """
    if os.environ.get("FSB_TERMINATION_LOG"):
        leave_message(json.dumps(summarise(folder), ensure_ascii=False))


def summarise(folder: str) -> Json:
    """Return place and digest of a record and, of a report, scores and gate."""
    record = records.read_record(folder)
    summary: Json = {"record": folder, "digest": record.digest}
    if isinstance(record, EvalReport):
        summary["gate"] = {
            "passed": record.gate.has_passed,
            "reason": record.gate.reason[:_REASON_LIMIT],
        }
        summary["scores"] = [
            {
                "task": score.task,
                "runner": score.runner,
                "value": f"{score.seed_values[0]:.4f}",
                "interval": f"{score.interval[0]:.4f}-{score.interval[1]:.4f}",
                "majority": f"{score.majority_value:.4f}",
                "numRows": score.num_rows,
            }
            for score in record.scores
        ]
    return summary
