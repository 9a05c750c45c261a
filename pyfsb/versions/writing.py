# SPDX-License-Identifier: Apache-2.0
"""Writing a model store: versions are only added, aliases move by compare-and-swap.

A store that ignores conditional writes, which is probed, would lose one of two writers' work
without a word: there, writing is refused unless the caller says that it is the only writer.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Final

from pyfsb import records, storage
from pyfsb.errors import ConfigError, DataError, GateError, NotReadyError
from pyfsb.versions.documents import Alias, ModelVersion, Move
from pyfsb.versions.references import resolve
from pyfsb.versions.reports import describe, judge
from pyfsb.versions.store import (
    alias_uri,
    decode,
    encode,
    find_numbers,
    find_store,
    list_versions,
    read_alias,
    version_uri,
)

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ATTEMPTS: Final = 50
"""Tries against other writers; each lost one means that another writer went on."""


def register(
    name: str,
    checkpoint: str,
    *,
    evaluation: str | None = None,
    note: str = "",
    store: str | None = None,
    is_single_writer: bool = False,
) -> ModelVersion:
    """Add a version of a model; the same checkpoint with the same report and note is added once.

    Args:
        name: Name in the store; a new one is made.
        checkpoint: Folder or s3:// prefix of the weights, which stay there.
        evaluation: Folder of the report about it. None looks in the run that made the checkpoint.
        note: Words to keep.
        store: Folder or s3:// prefix; None as `find_store`.
        is_single_writer: The caller vouches that nobody else writes to this store now.

    Raises:
        CheckpointError: There are no weights.
        DataError: The report is not about them.
        ConfigError: The name is none, or the store does not keep conditional writes.
    """
    place = find_store(store)
    _check_word("name of a model", name)
    checkpoint = storage.absolute(checkpoint)
    described = describe(checkpoint)
    judged = judge(checkpoint, described.digest, evaluation)
    _check_conditions(place, is_single_writer=is_single_writer)
    for _ in range(_ATTEMPTS):
        known = list_versions(name, place) if find_numbers(place, name) else []
        version = ModelVersion(
            name=name, number=known[-1].number + 1 if known else 1, checkpoint=checkpoint,
            digest=described.digest, model=described.model, task=described.task,
            scores=judged.scores, gate=judged.gate, evaluation=judged.evaluation,
            evaluation_digest=judged.digest, parents=described.parents,
            created_at=records.now(), note=note,
        )  # fmt: skip
        same = next((old for old in known if _is_same(old, version)), None)
        if same:
            return same
        if storage.write_if_absent(version_uri(place, name, version.number), encode(version)):
            return version
    raise NotReadyError(f"{place}: {_ATTEMPTS} other writers came first; run it again")


def promote(
    reference: str,
    alias: str,
    *,
    ignores_gate: bool = False,
    note: str = "",
    store: str | None = None,
    is_single_writer: bool = False,
) -> Alias:
    """Move an alias to a version; nothing happens where it stands for it already.

    Args:
        reference: `name@3`, or `name@other-alias`.
        alias: The alias; a new one is made.
        ignores_gate: Promote a version whose gate has not passed, or that has none; the alias'
            history says so.
        note: Words to keep.
        store: Folder or s3:// prefix; None as `find_store`.
        is_single_writer: The caller vouches that nobody else writes to this store now.

    Raises:
        GateError: Its gate has not passed, or it has none.
        UnknownNameError: There is no such version.
        ConfigError: The alias is no name, or the store does not keep conditional writes.
    """
    _check_alias(alias)
    version = resolve(reference, store)
    has_passed = version.gate is not None and version.gate.has_passed
    if not has_passed and not ignores_gate:
        why = version.gate.reason if version.gate else "it has no evaluation report"
        raise GateError(
            f"{version.reference} is not promoted to {alias!r}: {why}; register it with "
            "--evaluation of a report that passes, or promote it with --ignore-gate"
        )

    def move(before: Alias) -> Move | None:
        if before.moves and before.version == version.number:
            return None
        return Move(
            id=uuid.uuid4().hex, action="promote", version=version.number,
            moved_at=records.now(), ignored_gate=not has_passed, note=note,
        )  # fmt: skip

    return _move(version.name, alias, move, store, is_single_writer=is_single_writer)


def rollback(
    name: str,
    alias: str,
    *,
    note: str = "",
    store: str | None = None,
    is_single_writer: bool = False,
) -> Alias:
    """Move an alias back to the version that it stood for before the present one.

    Raises:
        UnknownNameError: There is no such model or alias.
        DataError: It has stood for no other version.
        ConfigError: The store does not keep conditional writes.
    """
    read_alias(name, alias, store)

    def move(before: Alias) -> Move:
        if len(before.stack) < 2:
            raise DataError(
                f"{name}@{alias} has stood for no version before {before.version}; promote "
                "another one instead"
            )
        return Move(
            id=uuid.uuid4().hex, action="rollback", version=before.stack[-2],
            moved_at=records.now(), note=note,
        )  # fmt: skip

    return _move(name, alias, move, store, is_single_writer=is_single_writer)


def _move(
    name: str,
    alias: str,
    decide: Callable[[Alias], Move | None],
    store: str | None,
    *,
    is_single_writer: bool,
) -> Alias:
    """Add a move to an alias' history, again for as long as others come first."""
    place = find_store(store)
    swaps = _check_conditions(place, is_single_writer=is_single_writer)
    uri = alias_uri(place, name, alias)
    tried: set[str] = set()
    for _ in range(_ATTEMPTS):
        found = storage.read_versioned(uri)
        before = decode(Alias, found[0], uri) if found else Alias(name=name, alias=alias)
        # A put that was sent twice finds its own move there.
        if tried & {move.id for move in before.moves}:
            return before
        move = decide(before)
        if move is None:
            return before
        tried.add(move.id)
        after = before.model_copy(update={"moves": (*before.moves, move)})
        if not swaps:
            storage.write_bytes(uri, encode(after))
            return after
        if storage.write_if_unchanged(uri, encode(after), found[1] if found else None):
            return after
    raise NotReadyError(f"{uri}: {_ATTEMPTS} other writers came first; run it again")


def _check_conditions(place: str, *, is_single_writer: bool) -> bool:
    """Say whether the store keeps conditional writes; where it must, refuse one that does not."""
    if storage.swaps_safely(place):
        return True
    if is_single_writer:
        return False
    raise ConfigError(
        f"{place} is on an object store that ignores If-Match and If-None-Match: two writers would "
        "lose one another's work without a word. Use a store that keeps them, or say with "
        "--single-writer that nobody else writes to this one now"
    )


def _check_word(what: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"{what} {text!r}: expected letters, digits, '.', '_' and '-', 63 at most"
        )


def _check_alias(alias: str) -> None:
    _check_word("alias", alias)
    if alias.isdigit():
        raise ConfigError(f"alias {alias!r}: a number names a version; use a word")


def _is_same(old: ModelVersion, new: ModelVersion) -> bool:
    left = {"number", "created_at"}
    return old.model_dump(exclude=left) == new.model_dump(exclude=left)
