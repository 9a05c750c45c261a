# SPDX-License-Identifier: Apache-2.0
"""Continue a training: from its saved state, on any number of ranks and any ZeRO stage.

Called by `session` at the start and by the loop when it goes back. The first rank says which
states there are; every rank fetches and verifies the files it needs; one that any rank finds
broken is left out by all. Never writes a state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import nn

from pyfsb.errors import CheckpointError, FsbError, StorageError
from pyfsb.training.checkpoint import (
    CheckpointStore,
    TrainState,
    describe_architecture,
    on_first,
    pack,
    raise_first,
)
from pyfsb.training.deepspeed import Engine
from pyfsb.training.distributed import ProcessGroup
from pyfsb.training.fragments import finish_restore, held_fragments, trainable_shapes
from pyfsb.training.saved_state import (
    BrokenStateError,
    Candidate,
    Files,
    FoundState,
    check_fits,
    list_candidates,
    open_state,
    read_texts,
)

_log = logging.getLogger(__name__)


def start_engine(
    build_module: Callable[[], nn.Module],
    store: CheckpointStore,
    group: ProcessGroup,
    build_engine: Callable[[nn.Module], Engine],
) -> tuple[TrainState, Engine]:
    """Return the state to go on from and an engine that stands there; all ranks take part.

    Args:
        build_module: Makes the module with its first weights.
        store: The training's saved states.
        group: The ranks.
        build_engine: Hands a module to DeepSpeed.

    Raises:
        CheckpointError: The newest complete state is of another architecture or other settings.
        StorageError: Disk or store failed, or the ranks do not see the same states.
    """
    store.open(group)
    module = build_module()
    shapes = trainable_shapes(module)
    engine = build_engine(module)
    state = _load_newest(engine, shapes, store, group)
    store.prepare(engine, group, resumed=state.step if state else None)
    return state or TrainState(), engine


def rewind(engine: Engine, store: CheckpointStore, group: ProcessGroup) -> TrainState:
    """Take an engine back to the last saved state, in place; all ranks take part.

    Raises:
        CheckpointError: There is no saved state.
        StorageError: Disk or store failed.
    """
    brought = store.bring_back(engine, group)
    if brought:
        state, num_updates = brought
        finish_restore(engine, num_steps=num_updates)
        return state
    found = _load_newest(engine, trainable_shapes(engine.module), store, group)
    if found is None:
        raise CheckpointError(
            f"there is no saved state to go back to in {store.workspace.uri}; lower "
            "training.checkpoint_every_steps or optimizer.learning_rate"
        )
    return found


def _load_newest(
    engine: Engine, shapes: dict[str, tuple[int, ...]], store: CheckpointStore, group: ProcessGroup
) -> TrainState | None:
    for candidate in on_first(group, lambda: list_candidates(store.workspace)):
        found = _open(candidate, store, group)
        if found is None:
            continue
        check_fits(
            found,
            architecture=describe_architecture(engine.module),
            shapes=shapes,
            fingerprint=store.fingerprint,
        )
        files = Files(found, held_fragments(engine))
        if _is_whole(files, found, group):
            files.load()
            finish_restore(engine, num_steps=found.saved.num_updates)
            _log.info("continuing from step %d", found.saved.state.step)
            return found.saved.state
    return None


def _open(candidate: Candidate, store: CheckpointStore, group: ProcessGroup) -> FoundState | None:
    """Return a state as the first rank reads it, or None when it is damaged."""

    def read() -> tuple[bytes, bytes] | str:
        try:
            return read_texts(store.workspace, candidate)
        except BrokenStateError as exc:
            return str(exc)

    texts = on_first(group, read)
    try:
        if isinstance(texts, str):
            raise BrokenStateError(texts)
        return open_state(store.workspace, candidate, texts)
    except BrokenStateError as exc:
        _warn(str(exc), group)
        return None


def _is_whole(files: Files, found: FoundState, group: ProcessGroup) -> bool:
    """Say whether every rank has what it needs; raises on all what failed on any."""
    broken, failure = None, None
    try:
        if found.uri is None and not found.folder.is_dir():
            raise StorageError(
                f"rank {group.rank} does not see {found.folder}, which rank 0 sees; all ranks must "
                "continue from the same state"
            )
        files.verify()
    except BrokenStateError as exc:
        broken = str(exc)
    except FsbError as exc:
        failure = exc
    answers = group.gather((broken, pack(failure)))
    raise_first([packed for _, packed in answers])
    reasons = [reason for reason, _ in answers if reason]
    if reasons:
        _warn(reasons[0], group)
    return not reasons


def _warn(reason: str, group: ProcessGroup) -> None:
    if group.is_first:
        _log.warning("%s; going back to the state before it", reason)
