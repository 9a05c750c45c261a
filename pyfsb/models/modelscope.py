# SPDX-License-Identifier: Apache-2.0
"""Fetch a repository of ModelScope over its HTTP file interface.

Called by `hub`, when no local cache has the repository, and by `import_sources`, which wants other
files. `MODELSCOPE_ENDPOINT` names another server. Files come into a folder beside the final one,
are compared with the stated size and sha256, and take their place together. Never opens what it
fetches.

Source: modelscope.hub (api, file_download): `GET /api/v1/models/NAME/repo/files?Revision=…&
Recursive=True` lists, `GET /api/v1/models/NAME/repo?Revision=…&FilePath=…` gives a file.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from filelock import FileLock

from pyfsb import storage
from pyfsb.errors import CheckpointError, ConfigError, StorageError
from pyfsb.models.hub import (
    TIMEOUT_SECONDS,
    HubUri,
    RemoteFile,
    Snapshot,
    check_file,
    choose_files,
    find_gap,
    how_to_get,
)

_log = logging.getLogger(__name__)

_ENDPOINT: Final = "https://www.modelscope.cn"
_TRIES: Final = 4
_BLOCK_BYTES: Final = 1 << 20
_LISTING_BYTES: Final = 16 << 20
"""Bytes of a list of files at most."""
_FAILURES: Final = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


Choose = Callable[[HubUri, list[RemoteFile]], list[RemoteFile]]
"""From the files that a repository has to those that are fetched."""
FindGap = Callable[[Path], str | None]
"""Names a file that a folder lacks; None: it is whole."""


def fetch(
    uri: HubUri, base: Path, *, choose: Choose = choose_files, find_gap: FindGap = find_gap
) -> Snapshot:
    """Bring a repository; what was fetched before and is whole stays.

    Args:
        uri: Which one.
        base: Folder for its snapshots; processes of this machine take turns.
        choose: Says which files are wanted.
        find_gap: Says what a folder lacks to be used.

    Raises:
        CheckpointError: There is no such repository, or it cannot be used.
        StorageError: The server failed several times, or the disk is full.
    """
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / ".lock"):
        files, commit = _list(uri)
        chosen = choose(uri, files)
        pinned = HubUri(hub=uri.hub, name=uri.name, revision=commit)
        target = base / "snapshots" / commit.replace("/", "%2F")
        has_all = all((target / file.path).is_file() for file in chosen)
        if not has_all or find_gap(target) is not None:
            _fetch_all(uri, chosen, target, find_gap)
        reference = base / "refs" / uri.revision.replace("/", "%2F")
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")
    return Snapshot(folder=target, uri=str(pinned))


def find_fetched(uri: HubUri, base: Path) -> Snapshot | None:
    """Return what was fetched of a repository before, without asking the hub; None: nothing."""
    reference = base / "refs" / uri.revision.replace("/", "%2F")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else uri.revision
    folder = base / "snapshots" / commit.replace("/", "%2F")
    if not folder.is_dir():
        return None
    return Snapshot(folder=folder, uri=str(HubUri(hub=uri.hub, name=uri.name, revision=commit)))


def _list(uri: HubUri) -> tuple[list[RemoteFile], str]:
    """Return the files of a repository and the commit that last changed one of them."""
    url = _url(uri, "repo/files", Revision=uri.revision, Recursive="True")
    try:
        with _open(url) as answer:
            entries = json.loads(answer.read(_LISTING_BYTES))["Data"]["Files"]
        files = [entry for entry in entries if entry["Type"] != "tree"]
        described = [_describe(entry) for entry in files]
    except urllib.error.HTTPError as exc:
        raise _explain_status(uri, exc) from None
    except _FAILURES as exc:
        raise StorageError(_explain(uri, exc)) from None
    except (ValueError, KeyError, TypeError) as exc:
        raise StorageError(f"{url} gave no list of files ({exc!r})") from None
    newest: Any = max(files, key=lambda entry: entry.get("CommittedDate") or 0, default={})
    commit = str(newest.get("Revision") or uri.revision)
    if commit.strip(".") == "":
        raise CheckpointError(f"{uri}: the hub calls its commit {commit!r}; expected a revision")
    return described, commit


def _describe(entry: Any) -> RemoteFile:
    return RemoteFile(
        path=str(entry["Path"]), num_bytes=int(entry["Size"]), sha256=entry.get("Sha256") or None
    )


def _fetch_all(uri: HubUri, files: Sequence[RemoteFile], target: Path, find_gap: FindGap) -> None:
    """Bring files into a folder that is there when all of them are whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(file.num_bytes or 0 for file in files)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise StorageError(
            f"{uri} takes {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free in "
            f"{target.parent}; free some space or set FSB_CACHE to another disk"
        )
    try:
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as name:
            folder = Path(name) / "files"
            folder.mkdir()
            for file in files:
                size = (file.num_bytes or 0) / 2**20
                _log.info("%s: fetching %s, %.1f MiB", uri, file.path, size)
                _fetch_file(uri, file, folder / file.path)
                check_file(folder / file.path, file, uri)
            gap = find_gap(folder)
            if gap:
                raise CheckpointError(f"{uri} lacks {gap}, which its index names")
            shutil.rmtree(target, ignore_errors=True)
            os.replace(folder, target)
    except OSError as exc:
        raise storage.explain_os_error(exc, str(target), "fetch to") from exc


def _fetch_file(uri: HubUri, file: RemoteFile, path: Path) -> None:
    """Bring one file; a broken connection goes on where it broke, a few times."""
    url = _url(uri, "repo", Revision=uri.revision, FilePath=file.path)
    with path.open("wb") as target:
        for number in range(1, _TRIES + 1):
            try:
                _read_on(url, target, limit=file.num_bytes)
            except urllib.error.HTTPError as exc:
                if exc.code < 500 or number == _TRIES:
                    raise _explain_status(uri, exc) from None
            except _FAILURES as exc:
                if number == _TRIES:
                    raise StorageError(_explain(uri, exc)) from None
            if file.num_bytes is None or target.tell() >= file.num_bytes:
                return
            time.sleep(0.5 * 2 ** (number - 1))
    # Too short after every try: `check_file` says so.


def _read_on(url: str, target: BinaryIO, *, limit: int | None) -> None:
    """Append what follows the bytes that are there; more than stated is never written."""
    start = target.tell()
    with _open(url, start=start) as answer:
        if start and answer.status != http.client.PARTIAL_CONTENT:
            target.seek(0)
            target.truncate()
        while block := answer.read(_BLOCK_BYTES):
            target.write(block)
            if limit is not None and target.tell() > limit:
                return


def _open(url: str, *, start: int = 0) -> contextlib.closing[http.client.HTTPResponse]:
    headers = {"User-Agent": "fengshenbang", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `_url` checks the scheme
    return contextlib.closing(urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS))  # noqa: S310


def _url(uri: HubUri, verb: str, **query: str) -> str:
    endpoint = (os.environ.get("MODELSCOPE_ENDPOINT") or _ENDPOINT).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise ConfigError(f"MODELSCOPE_ENDPOINT = {endpoint!r}: expected https:// or http://")
    return f"{endpoint}/api/v1/models/{uri.name}/{verb}?{urllib.parse.urlencode(query)}"


def _explain_status(uri: HubUri, exc: urllib.error.HTTPError) -> CheckpointError | StorageError:
    if exc.code >= 500:
        return StorageError(_explain(uri, exc))
    return CheckpointError(
        f"{uri}: the hub answered {exc.code}; is there such a repository and revision, and is it "
        "public?"
    )


def _explain(uri: HubUri, exc: Exception) -> str:
    reason = getattr(exc, "reason", None) or exc
    return f"{uri} is in no local cache and cannot be fetched ({reason}); {how_to_get(uri)}"
