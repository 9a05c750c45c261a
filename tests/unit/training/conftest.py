"""Trainings whose writers end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.states import (
    Training,
)


@pytest.fixture
def make() -> Iterator[Callable[..., Training]]:
    """Make trainings; their writers end with the test."""
    made: list[Training] = []

    def begin(place: Path | str, **settings: Any) -> Training:
        made.append(Training(place, **settings).start())
        return made[-1]

    yield begin
    for training in made:
        training.store.close(is_failed=True)
