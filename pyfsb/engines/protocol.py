# SPDX-License-Identifier: Apache-2.0
"""What an engine is, and how others join: the entry-point group `fsb.engines`.

An entry point names a callable with the signature of `Engine`; `local` is ours, `kfp-local`
comes from the pipelines package.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Final, Protocol

from pyfsb.config import RunSpec, Stage
from pyfsb.errors import ConfigError, UnknownNameError
from pyfsb.records import Record

GROUP: Final = "fsb.engines"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What one stage left behind."""

    stage: Stage
    """Which stage."""
    seconds: float
    """Wall time, start of processes included; of the earlier run when it was complete."""
    was_complete: bool
    """True: an earlier run had finished it, nothing was done."""
    places: tuple[str, ...]
    """Folders of its records, or of its pages."""
    records: tuple[Record, ...]
    """Its records."""


@dataclass(slots=True)
class RunResult:
    """What a run left behind so far; filled while it goes on."""

    stages: list[StageResult] = field(default_factory=list)
    """Finished stages, in order."""
    server: subprocess.Popen[bytes] | None = None
    """The model server, when it was asked to stay."""


class Engine(Protocol):
    """Runs the stages of a spec."""

    def __call__(self, spec: RunSpec, result: RunResult, *, keeps_serving: bool) -> None:
        """Run every stage that is not complete, noting each in `result` as it ends.

        Raises:
            FsbError: A stage failed; what was complete before it is in `result`.
        """


def find_engine(name: str) -> Engine:
    """Return the engine registered under a name.

    Raises:
        UnknownNameError: There is none; carries the nearest.
        ConfigError: Its package is not installed.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise UnknownNameError("engine", name, found)
    try:
        engine: Engine = found[name].load()
    except ImportError as exc:
        raise ConfigError(
            f"engine {name!r}: {exc.name} is not installed; pip install 'fengshenbang[pipelines]'"
        ) from None
    return engine
