# SPDX-License-Identifier: Apache-2.0
"""A moment after which a prediction stops: set around a call, looked at between rows or batches.

The server sets it, because a thread cannot be interrupted and nobody waits for an answer that
comes too late. Evaluation and `pyfsb.load` set none, and nothing changes for them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

from pyfsb.errors import NotReadyError

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class OutOfTimeError(NotReadyError):
    """The deadline passed before every row was answered."""


@contextlib.contextmanager
def deadline_at(moment: float | None) -> Iterator[None]:
    """Set the deadline of the predictions in the block, in this thread.

    Args:
        moment: Seconds on the clock of `time.monotonic`; None sets no deadline.
    """
    token = _deadline.set(moment)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_deadline() -> None:
    """Stop here when the deadline has passed; predictors call it before each row or batch.

    Raises:
        OutOfTimeError: It has.
    """
    moment = _deadline.get()
    if moment is not None and time.monotonic() >= moment:
        raise OutOfTimeError("the deadline passed before every row was answered; send fewer rows")
