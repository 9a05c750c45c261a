# SPDX-License-Identifier: Apache-2.0
"""What a stage that ended well tells others: the operator, and the leaderboard of the platform.

A pod's last word reaches the operator through the API, so the operator needs no keys of a run's
store. Called by the stages' `__main__`; `report_outcome` does nothing outside a pod.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Final

from pyfsb import records, storage
from pyfsb.processes import leave_message
from pyfsb.records import RECORD_NAME, EvalReport, Record
from pyfsb.schema import Json, digest

LEADERBOARD_VARIABLE: Final = "FSB_LEADERBOARD"
"""Environment variable: folder or s3:// prefix that evaluations report to."""
_REASON_LIMIT: Final = 500
_MESSAGE_BYTES: Final = 4000
"""Kubernetes keeps 4,096 bytes of a termination message."""
_log = logging.getLogger(__name__)


def report_outcome(*folders: str) -> None:
    """Write the summary of a stage's records to `FSB_TERMINATION_LOG`, if that is set.

    Args:
        folders: Folder or s3:// prefix of each record of the stage.

    Raises:
        DataError: There is no usable record.
    """
    if os.environ.get("FSB_TERMINATION_LOG"):
        leave_message(_encode(summarise(*folders)))


def report_to_leaderboard(folder: str) -> None:
    """Copy a report to the store that `FSB_LEADERBOARD` names, if that is set.

    A report lies under its own digest there: the same one copied twice is one report.

    Args:
        folder: Folder or s3:// prefix of the evaluation.

    Raises:
        DataError: There is no usable report.
        StorageError: The store failed.
    """
    store = os.environ.get(LEADERBOARD_VARIABLE)
    if not store or os.environ.get("RANK", "0") != "0":  # RANK numbers the pods of a PyTorchJob
        return
    record = records.read_record(folder)
    name = record.digest.removeprefix("sha256:")
    place = storage.join(store, "reports", name, "evaluation", RECORD_NAME)
    storage.write_bytes(place, storage.read_bytes(storage.join(folder, RECORD_NAME)))
    _log.info("reported to %s", place)


def summarise(*folders: str) -> Json:
    """Return place and digest of a stage's records and, of a report, scores and gate.

    Several records (the data stage's) are told as the folder above them and a digest over theirs.
    """
    found = [records.read_record(folder) for folder in folders]
    if len(found) > 1:
        above = storage.join(folders[0], "..")
        return {"record": above, "digest": digest([record.digest for record in found])}
    return {"record": folders[0], "digest": found[0].digest, **_judge(found[0], folders[0])}


def _judge(record: Record, folder: str) -> Json:
    if not isinstance(record, EvalReport):
        return {}
    gate = record.gate
    served = next(
        (one for one in record.scores if (one.task, one.runner) == (gate.task, gate.runner)), None
    )
    summary: Json = {}
    if served:
        summary["servedCheckpoint"] = storage.resolve(served.checkpoint, folder)
        summary["servedDigest"] = served.checkpoint_digest
    return {
        **summary,
        "gate": {"passed": gate.has_passed, "reason": gate.reason[:_REASON_LIMIT]},
        "scores": [
            {
                "task": score.task,
                "runner": score.runner,
                "value": f"{score.seed_values[0]:.4f}",
                "interval": f"{score.interval[0]:.4f}-{score.interval[1]:.4f}",
                "majority": f"{score.majority_value:.4f}",
                "numRows": score.num_rows,
            }
            for score in record.scores
        ],
    }


def _encode(summary: Json) -> str:
    """Return the summary as JSON that Kubernetes keeps whole: the last scores go first."""
    text = json.dumps(summary, ensure_ascii=False)
    while len(text.encode()) > _MESSAGE_BYTES and summary.get("scores"):
        summary = {**summary, "scores": summary["scores"][:-1]}
        text = json.dumps(summary, ensure_ascii=False)
    return text
