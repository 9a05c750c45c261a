# SPDX-License-Identifier: Apache-2.0
"""Reading a model store: its layout, its versions and its aliases."""

from __future__ import annotations

import json
import os
import re
from typing import Final, TypeVar

from pyfsb import storage
from pyfsb.errors import ConfigError, DataError, UnknownNameError
from pyfsb.schema import Schema, parse
from pyfsb.versions.documents import Alias, ModelVersion

STORE_VARIABLE: Final = "FSB_MODEL_STORE"
"""Environment variable: folder or s3:// prefix of the model store."""
_DEFAULT_STORE: Final = "models"
_VERSION_FILE: Final = re.compile(r"(?:([^/]+)/versions/)?([0-9]{6,})\.json")
T = TypeVar("T", bound=Schema)


def find_store(store: str | None = None) -> str:
    """Return the store that was named, else `FSB_MODEL_STORE`, else the folder `models`."""
    return storage.absolute(store or os.environ.get(STORE_VARIABLE) or _DEFAULT_STORE)


def list_versions(name: str | None = None, store: str | None = None) -> list[ModelVersion]:
    """Return every version of a model, oldest first; without a name, of all models.

    Raises:
        UnknownNameError: The store has no model of that name.
    """
    place = find_store(store)
    names = _names(place) if name is None else [name]
    numbers = {one: find_numbers(place, one) for one in names}
    if name is not None and not numbers[name]:
        raise UnknownNameError(f"model in {place}", name, _names(place))
    return [_read(place, one, number) for one, found in numbers.items() for number in found]


def list_aliases(name: str, store: str | None = None) -> list[Alias]:
    """Return every alias of a model, by name."""
    place = find_store(store)
    files = storage.list_files(storage.join(place, name, "aliases"))
    names = [file.path.removesuffix(".json") for file in files if file.path.endswith(".json")]
    return [read_alias(name, one, place) for one in names]


def read_alias(name: str, alias: str, store: str | None = None) -> Alias:
    """Return an alias.

    Raises:
        UnknownNameError: There is no such model or alias.
        DataError: Its document is not usable.
    """
    place = find_store(store)
    uri = alias_uri(place, name, alias)
    if not storage.exists(uri):
        if not find_numbers(place, name):
            raise UnknownNameError(f"model in {place}", name, _names(place))
        aliases = [found.alias for found in list_aliases(name, place)]
        shown = f" (known: {', '.join(aliases)})" if aliases else ""
        raise UnknownNameError(f"alias of {name}{shown}", alias, aliases)
    return decode(Alias, storage.read_bytes(uri), uri)


def read_version(name: str, number: int, store: str | None = None) -> ModelVersion:
    """Return one version.

    Raises:
        UnknownNameError: There is no such model or version.
        DataError: Its document is not usable.
    """
    place = find_store(store)
    if not storage.exists(version_uri(place, name, number)):
        numbers = [str(one) for one in find_numbers(place, name)]
        if not numbers:
            raise UnknownNameError(f"model in {place}", name, _names(place))
        raise UnknownNameError(
            f"version of {name} (known: {', '.join(numbers)})", str(number), numbers
        )
    return _read(place, name, number)


def find_numbers(place: str, name: str) -> list[int]:
    """Return the numbers of a model's versions, ascending; none where there is no such model."""
    files = storage.list_files(storage.join(place, name, "versions"))
    found = [_VERSION_FILE.fullmatch(file.path) for file in files]
    return sorted(int(match[2]) for match in found if match)


def _names(place: str) -> list[str]:
    found = [_VERSION_FILE.fullmatch(file.path) for file in storage.list_files(place)]
    return sorted({match[1] for match in found if match and match[1]})


def version_uri(place: str, name: str, number: int) -> str:
    """Return the place of a version's document."""
    return storage.join(place, name, "versions", f"{number:06d}.json")


def alias_uri(place: str, name: str, alias: str) -> str:
    """Return the place of an alias' document."""
    return storage.join(place, name, "aliases", f"{alias}.json")


def _read(place: str, name: str, number: int) -> ModelVersion:
    uri = version_uri(place, name, number)
    return decode(ModelVersion, storage.read_bytes(uri), uri)


def encode(document: Schema) -> bytes:
    """Return a document as it is stored."""
    return (json.dumps(document.to_json(), ensure_ascii=False, indent=2) + "\n").encode()


def decode(kind: type[T], data: bytes, uri: str) -> T:
    """Read a document.

    Raises:
        DataError: It is not one of this version.
    """
    try:
        return parse(kind, json.loads(data), source=uri)
    except (ValueError, TypeError, ConfigError) as exc:
        raise DataError(f"{uri} is not usable: {str(exc)[:300]}") from None
