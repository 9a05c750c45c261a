# SPDX-License-Identifier: Apache-2.0
"""URIs of things on storage: `s3://bucket/key`, or a plain folder path.

A trailing slash never matters. Called by everything that names a place; never touches storage.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from pyfsb.errors import ConfigError

S3_SCHEME = "s3://"
HUB_SCHEMES = ("hf://", "modelscope://")
"""Repositories of models; only `pyfsb.models.hub` opens them."""


def is_s3(uri: str) -> bool:
    """Say whether the URI lies in an object store."""
    return uri.startswith(S3_SCHEME)


def is_hub(uri: str) -> bool:
    """Say whether the URI names a repository of a model hub."""
    return uri.startswith(HUB_SCHEMES)


def split_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URI.

    Raises:
        ConfigError: There is no bucket in it.
    """
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket; expected s3://bucket/folder")
    return bucket, key.strip("/")


def normalise(uri: str) -> str:
    """Return the URI in one spelling: no `file://`, no trailing slash, no `.` parts.

    Raises:
        ConfigError: The scheme is not one that storage knows.
    """
    if is_hub(uri):
        return uri.rstrip("/")
    if is_s3(uri):
        bucket, key = split_s3(uri)
        return S3_SCHEME + posixpath.join(bucket, posixpath.normpath(key) if key else "").rstrip(
            "/"
        )
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise ConfigError(f"{uri!r} has scheme {scheme}://; expected s3:// or a folder path")
    return os.path.normpath(rest if separator else uri)


def absolute(uri: str) -> str:
    """Return the URI with a folder path made absolute against the working directory."""
    uri = normalise(uri)
    return uri if is_s3(uri) or is_hub(uri) else os.path.abspath(Path(uri).expanduser())


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below another; `..` parts climb."""
    if is_s3(uri):
        return normalise(posixpath.join(uri.rstrip("/"), *parts))
    return os.path.normpath(os.path.join(uri, *parts))


def relative(uri: str, base: str, *, root: str) -> str:
    """Return a link to `uri` for a file in the folder `base`.

    Below `root` (the output of one run) links are relative, so that a run can be moved or copied
    to S3 as a whole; anything outside stays absolute.
    """
    target, start, top = absolute(uri), absolute(base), absolute(root)
    if not all(
        place == top or place.startswith(top.rstrip("/") + "/") for place in (target, start)
    ):
        return target
    return posixpath.relpath(target.removeprefix(S3_SCHEME), start.removeprefix(S3_SCHEME))


def resolve(link: str, base: str) -> str:
    """Undo `relative`: return the absolute URI of a link found in the folder `base`."""
    if is_s3(link) or is_hub(link) or os.path.isabs(link):
        return normalise(link)
    return join(absolute(base), link)


def split_glob(pattern: str) -> tuple[str, str]:
    """Return the folders of a glob that hold no wildcard, and the rest."""
    parts = pattern.split("/")
    count = next((n for n, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return "/".join(parts[:count]), "/".join(parts[count:])


def glob_matches(pattern: str, path: str) -> bool:
    """Say whether a relative path matches, with the meaning that `glob` gives a pattern on a disk.

    `*`, `?` and `[…]` stay within one folder and leave names with a leading dot out; `**` stands
    for any number of folders.
    """
    return _parts_match(pattern.split("/"), path.split("/"))


def _parts_match(patterns: Sequence[str], names: Sequence[str]) -> bool:
    if not patterns:
        return not names
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        visible = next((n for n, name in enumerate(names) if name.startswith(".")), len(names))
        return any(_parts_match(rest, names[skip:]) for skip in range(visible + 1))
    if not names or (names[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], first) and _parts_match(rest, names[1:])
