# SPDX-License-Identifier: Apache-2.0
"""Prepares a rank's micro-batches ahead of the step that takes them.

A thread plans the steps after the last one that was loaded, shares them out and collates this
rank's slices. What `load` returns depends on the position alone, whether it was prepared or not.
Called by the training loop and by validation; never decides the order.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from pyfsb.training.batching import Position, StepPlan, StepPlanner, share_out
from pyfsb.training.protocol import Batch, SampleSource, idle

_STEPS_AHEAD: Final = 4
_CLOSE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedStep:
    """One step as a rank takes it."""

    plan: StepPlan
    """The samples of the whole step."""
    batches: list[tuple[Batch, bool]]
    """This rank's micro-batches, and whether each is real: all ranks take the same number of
    micro-steps, and one that has nothing left computes on the step's first sample and counts it as
    nothing."""
    wait_seconds: float
    """How long `load` waited for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """What the thread made of a position: a step, or the error that it met."""

    position: Position
    plan: StepPlan | None = None
    batches: list[tuple[Batch, bool]] | None = None
    error: BaseException | None = None


class Loader:
    """Loads steps by position, the coming ones ahead of time."""

    def __init__(
        self,
        source: SampleSource,
        planner: StepPlanner,
        *,
        group_rank: int,
        group_size: int,
        micro_tokens: int,
        layout: str,
        steps_ahead: int = _STEPS_AHEAD,
    ) -> None:
        """Keep the pieces; the thread starts with the first step that is loaded.

        Args:
            source: The samples.
            planner: Cuts the sequence into steps.
            group_rank: This process, from 0.
            group_size: Processes that share a step.
            micro_tokens: Tokens of a micro-batch at most.
            layout: How samples lie in a micro-batch (BatchSpec.layout).
            steps_ahead: Steps prepared at most; 0 prepares each when it is loaded.
        """
        self._source = source
        self._planner = planner
        self._rank = group_rank
        self._size = group_size
        self._micro_tokens = micro_tokens
        self._layout = layout
        self._steps_ahead = steps_ahead
        self._changed = threading.Condition()
        self._ready: deque[_Ready] = deque()
        self._wanted: Position | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return itself; the end of the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def load(self, position: Position) -> LoadedStep:
        """Return the step that begins at a position.

        Any position may be asked for; the one after the last is the one that is ready.

        Raises:
            DataError: Samples cannot be read, now or when they were prepared.
            StorageError: The storage failed for longer than its patience.
        """
        started = time.monotonic()
        ready = self._take(position) if self._steps_ahead else self._prepare(position)
        if ready.error is not None:
            raise ready.error
        assert ready.plan is not None
        assert ready.batches is not None
        return LoadedStep(
            plan=ready.plan, batches=ready.batches, wait_seconds=time.monotonic() - started
        )

    def close(self) -> None:
        """End the thread; what is prepared is dropped. May be called again.

        A thread that a store keeps waiting ends by itself, at the latest with the process.
        """
        with self._changed:
            self._is_closed = True
            self._wanted = None
            self._ready.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_SECONDS)

    def _take(self, position: Position) -> _Ready:
        """Wait for the thread's step at a position; asks for it when another one is under way."""
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the loader is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
                self._thread.start()
            head = self._ready[0].position if self._ready else self._wanted
            if head != position:
                self._ready.clear()
                self._wanted = position
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._ready or self._is_closed)
            if self._is_closed:
                raise RuntimeError("the loader was closed while a step was waited for")
            ready = self._ready.popleft()
            if ready.error is not None:
                self._wanted = None
            self._changed.notify_all()
            return ready

    def _run(self) -> None:
        """Prepare one step after the other; an error ends the row until a step is asked for."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._is_closed
                        or (self._wanted is not None and len(self._ready) < self._steps_ahead)
                    )
                )
                if self._is_closed:
                    return
                position = self._wanted
            assert position is not None
            ready = self._prepare(position)
            with self._changed:
                if self._wanted != position:
                    continue  # closed, or another place was asked for meanwhile
                self._ready.append(ready)
                self._wanted = ready.plan.next if ready.plan else None
                self._changed.notify_all()

    def _prepare(self, position: Position) -> _Ready:
        try:
            plan = self._planner.plan(position)
            return _Ready(position=position, plan=plan, batches=self._collate(plan))
        except BaseException as exc:  # it is raised again where the step is loaded
            return _Ready(position=position, error=exc)

    def _collate(self, plan: StepPlan) -> list[tuple[Batch, bool]]:
        """Return this rank's micro-batches of a step."""
        slices = share_out(
            self._planner.lengths_of(plan.sample_ids),
            num_processes=self._size,
            micro_tokens=self._micro_tokens,
            layout=self._layout,
        )[self._rank]
        batches: list[tuple[Batch, bool]] = []
        for rows in slices:
            is_real = rows.size > 0
            chosen = rows if is_real else slice(0, 1)
            batch = self._source.collate(plan.sample_ids[chosen], plan.passes[chosen])
            if not is_real:
                batch = idle(batch)
            batches.append((batch, is_real))
        return batches
