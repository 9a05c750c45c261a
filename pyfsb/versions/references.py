# SPDX-License-Identifier: Apache-2.0
"""`sentiment@production` and `sentiment@3`: what is such a reference, and what it stands for."""

from __future__ import annotations

import re
from typing import Final

from pyfsb import records
from pyfsb.errors import CheckpointError, ConfigError
from pyfsb.versions.documents import ModelVersion
from pyfsb.versions.store import read_alias, read_version

_WORD: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_REFERENCE: Final = re.compile(rf"({_WORD})@({_WORD})")


def is_reference(text: str) -> bool:
    """Say whether a text is `name@alias` or `name@3`.

    A folder of such a name is named with a slash: `./name@alias`.
    """
    return _REFERENCE.fullmatch(text) is not None


def resolve(reference: str, store: str | None = None) -> ModelVersion:
    """Return the version that a reference stands for now.

    Args:
        reference: `name@alias` or `name@3`.
        store: Folder or s3:// prefix; None takes `FSB_MODEL_STORE`, else the folder `models`.

    Raises:
        ConfigError: It is no reference.
        UnknownNameError: The store has no such name, alias or version; carries the nearest.
        DataError: A document of the store is not usable.
        StorageError: The store failed.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ConfigError(f"{reference!r}: expected NAME@VERSION or NAME@ALIAS")
    name, which = found.groups()
    number = int(which) if which.isdigit() else read_alias(name, which, store).version
    return read_version(name, number, store)


def locate(text: str, store: str | None = None) -> str:
    """Return the checkpoint of a reference; any other text is returned as it is.

    Raises:
        CheckpointError: Other weights lie there now than were registered.
        FsbError: As `resolve`.
    """
    if not is_reference(text):
        return text
    version = resolve(text, store)
    # A folder without a record is compared by whoever reads all of its bytes anyway.
    record = records.find_record(version.checkpoint)
    if record is not None and record.digest != version.digest:
        raise CheckpointError(
            f"{text} is version {version.number}, registered as {version.digest[:19]}, but "
            f"{version.checkpoint} holds {record.digest[:19]} now; register it again"
        )
    return version.checkpoint
