# SPDX-License-Identifier: Apache-2.0
"""One run at a time on one output.

On a disk the lock is the kernel's (it ends with the process, also by `kill -9`). On S3 it is an
object put with `If-None-Match: *` and renewed while the run lives; where the store ignores that
condition, which is probed, the lock is advisory and the log says so. Called by the engines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from pyfsb import storage
from pyfsb.errors import DataError, NotReadyError, StorageError
from pyfsb.processes import is_running

LOCK_NAME = ".lock"
LEASE_SECONDS = 60.0
"""An S3 lock not renewed for this long belongs to a dead run."""
HOLDER_VARIABLE: Final = "FSB_LOCK_HOLDER"
"""Environment variable: process id of the run that holds the output for the tasks it starts."""
_WATCH_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def hold_lock(output: str) -> Iterator[None]:
    """Hold an output for the length of the block.

    A task of a run that holds it, named by `HOLDER_VARIABLE`, works under that run's lock.

    Raises:
        NotReadyError: Another run holds it; names the process and host.
    """
    holder = _lender(output)
    if holder is not None:
        with _repeating(_WATCH_SECONDS, lambda: _end_without(holder)):
            yield
    elif storage.is_s3(output):
        with _hold_s3(output):
            yield
    else:
        with _hold_local(Path(output)):
            yield


def _lender(output: str) -> int | None:
    """Return the process that holds the output for this one, or None."""
    holder = os.environ.get(HOLDER_VARIABLE)
    if holder is None:
        return None
    owner = _read_owner(storage.join(output, LOCK_NAME if storage.is_s3(output) else ".owner"))
    is_its = str(owner.get("process")) == holder and owner.get("host") == socket.gethostname()
    return int(holder) if is_its and is_running(int(holder)) else None


def _end_without(holder: int) -> bool:
    """Kill this process when the lock's holder is gone: then another run may take the output."""
    if not is_running(holder):
        os.kill(os.getpid(), signal.SIGKILL)
    return True


@contextlib.contextmanager
def _repeating(seconds: float, act: Callable[[], bool]) -> Iterator[None]:
    """Do something every so many seconds of the block in a thread, until it returns False."""
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(seconds) and act():
            pass

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def _hold_local(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_NAME)
        lock.acquire(timeout=0)
    except Timeout:
        raise NotReadyError(_busy(str(folder), _read_owner(str(folder / ".owner")))) from None
    except OSError as exc:
        raise storage.explain_os_error(exc, str(folder), "lock") from exc
    try:
        (folder / ".owner").write_text(json.dumps(_owner()))
        yield
    finally:
        (folder / ".owner").unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _hold_s3(output: str) -> Iterator[None]:
    uri = storage.join(output, LOCK_NAME)
    owner = _owner()
    is_strict = keeps_conditions(output)
    if not is_strict:
        _log.warning("%s ignores If-None-Match: the run lock on it is advisory", output)
    is_put = is_strict and storage.write_if_absent(uri, _encode(owner))
    # A put that was sent twice finds its own object there.
    if not is_put and _read_owner(uri).get("token") != owner["token"]:
        _take_over(output, uri, owner)
    try:
        with _repeating(LEASE_SECONDS / 4, lambda: _renew(uri, owner)):
            yield
    finally:
        with contextlib.suppress(StorageError):
            if _read_owner(uri).get("token") == owner["token"]:
                storage.delete(uri)


def keeps_conditions(output: str) -> bool:
    """Say whether the store honours `If-None-Match: *`, by trying it below `output`."""
    probe = storage.join(output, f".probe-{uuid.uuid4().hex}")
    storage.write_if_absent(probe, b"1")
    try:
        return not storage.write_if_absent(probe, b"2")
    finally:
        storage.delete(probe)


def _take_over(output: str, uri: str, owner: dict[str, object]) -> None:
    held = _read_owner(uri)
    if held and _is_alive(held):
        raise NotReadyError(_busy(output, held))
    if held:
        _log.warning("taking over the lock of a run that ended without releasing it: %s", held)
    storage.write_bytes(uri, _encode(owner))


def _is_alive(held: dict[str, str]) -> bool:
    """Say whether a lock's owner may still run: its process here, or a fresh lease elsewhere."""
    if held["host"] == socket.gethostname() and not is_running(int(held["process"])):
        return False
    return time.time() - float(held["renewed"]) < LEASE_SECONDS


def _renew(uri: str, owner: dict[str, object]) -> bool:
    """Renew the lease; when another run has it, ask this process to stop and return False."""
    try:
        held = _read_owner(uri)
        if held and held["token"] != owner["token"]:
            _log.error("%s; this run was away too long and stops", _busy(uri, held))
            os.kill(os.getpid(), signal.SIGTERM)
            return False
        storage.write_bytes(uri, _encode(owner))
    except StorageError as exc:
        _log.warning("cannot renew the run lock: %s", exc)
    return True


def _owner() -> dict[str, object]:
    return {"process": os.getpid(), "host": socket.gethostname(), "token": uuid.uuid4().hex}


def _encode(owner: dict[str, object]) -> bytes:
    return json.dumps({**owner, "renewed": time.time()}).encode()


def _read_owner(uri: str) -> dict[str, str]:
    try:
        owner: dict[str, str] = json.loads(storage.read_bytes(uri))
    except (DataError, ValueError):
        return {}
    return owner


def _busy(output: str, owner: dict[str, str]) -> str:
    who = f"process {owner['process']} on {owner['host']}" if owner else "another process"
    return f"another run holds {output} ({who}); wait for it, stop it, or choose another output"
