# SPDX-License-Identifier: Apache-2.0
"""Find the evaluation reports that a leaderboard is built from."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pyfsb import records, storage
from pyfsb.errors import DataError
from pyfsb.records import RECORD_NAME, EvalReport

_log = logging.getLogger(__name__)


def find_reports(uris: Iterable[str]) -> list[EvalReport]:
    """Return the reports at or below places, each digest once, in a fixed order.

    Args:
        uris: Report folders, outputs of runs, or folders of many runs.

    Raises:
        DataError: There is no report at all.
    """
    names = list(uris)
    found = reports_at(names)
    if not found:
        raise DataError(f"no EvalReport at or below {', '.join(names)}; run an evaluation first")
    return found


def reports_at(uris: Iterable[str]) -> list[EvalReport]:
    """Return what `find_reports` does; nothing there is no error."""
    found: dict[str, EvalReport] = {}
    for uri in uris:
        for place in _record_places(uri):
            try:
                record = records.read_record(place)
            except DataError as exc:
                _log.warning("left out: %s", exc)
                continue
            if isinstance(record, EvalReport):
                found.setdefault(record.digest, record)
    return sorted(found.values(), key=lambda report: (report.run, report.digest))


def record_files(uri: str) -> list[storage.StoredFile]:
    """Return the records of evaluations below a place, sorted by path."""
    return [
        file for file in storage.list_files(uri) if file.path.endswith(f"evaluation/{RECORD_NAME}")
    ]


def _record_places(uri: str) -> list[str]:
    if storage.exists(storage.join(uri, RECORD_NAME)):
        return [uri]
    return [storage.join(uri, file.path) for file in record_files(uri)]
