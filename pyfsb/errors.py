# SPDX-License-Identifier: Apache-2.0
"""One error tree for the whole platform; every room raises from here and nothing else.

    FsbError
    ├── ConfigError            a setting is wrong                         exit 2,  HTTP 400
    │   └── UnknownNameError   a name nobody registered, with the nearest exit 2,  HTTP 404
    ├── DataError              a file or a row is wrong                   exit 3,  HTTP 500
    │   ├── CheckpointError    weights or state cannot be used            exit 3,  HTTP 500
    │   └── GateError          the score is not good enough to serve      exit 3,  HTTP 500
    ├── StorageError           a disk or an object store failed           exit 75, HTTP 503
    ├── ClusterError           the API server failed                      exit 75, HTTP 503
    └── NotReadyError          busy or not started yet                    exit 75, HTTP 503

The text of an error says what was wrong, the value, and what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_CONFIG = 2
EXIT_DATA = 3
EXIT_RETRY = 75
EXIT_LOST_PEER = 129
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class FsbError(Exception):
    """Base of every error that a user may see without a traceback."""

    exit_code: ClassVar[int] = EXIT_FAILURE
    http_status: ClassVar[int] = 500
    is_retryable: ClassVar[bool] = False


class ConfigError(FsbError):
    """A setting, an argument or a spec is wrong; the same call fails again."""

    exit_code = EXIT_CONFIG
    http_status = 400


class UnknownNameError(ConfigError):
    """A name that is not registered; the text carries the nearest registered ones."""

    http_status = 404

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Build the text from the kind of thing, the name asked for and the names that exist."""
        self.kind = kind
        self.name = name
        self.nearest = nearest_names(name, known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(self.nearest)}")


class DataError(FsbError):
    """A file, a row or a record is wrong; the same data fails again."""

    exit_code = EXIT_DATA


class CheckpointError(DataError):
    """Weights or training state are missing, broken or of another model."""


class GateError(DataError):
    """The evaluation does not allow the model to be served."""


class StorageError(FsbError):
    """A disk or an object store failed; a later try may succeed."""

    exit_code = EXIT_RETRY
    http_status = 503
    is_retryable = True


class ClusterError(FsbError):
    """The Kubernetes API failed; a later try may succeed."""

    exit_code = EXIT_RETRY
    http_status = 503
    is_retryable = True


class NotReadyError(FsbError):
    """Something is busy or not started yet; a later try may succeed."""

    exit_code = EXIT_RETRY
    http_status = 503
    is_retryable = True


def nearest_names(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return the registered names closest to `name`, best first, compared without case.

    Source: our choice (difflib ratio of at least 0.6).
    """
    by_lower = {candidate.lower(): candidate for candidate in sorted(known)}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=limit, cutoff=0.6)
    return [by_lower[match] for match in matches]


def did_you_mean(names: list[str]) -> str:
    """Return `; did you mean …?` for the given names, or nothing when there are none."""
    return f"; did you mean {' or '.join(repr(name) for name in names)}?" if names else ""
