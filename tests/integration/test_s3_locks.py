"""Conditional writes and the locks of runs on S3, on stores with and without conditions."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pyfsb import storage
from pyfsb.errors import NotReadyError
from pyfsb.storage import locks


def test_a_strict_store_refuses_the_second_writer(strict_s3: str) -> None:
    uri = storage.join(strict_s3, "x")
    assert storage.write_if_absent(uri, b"1")
    assert not storage.write_if_absent(uri, b"2")
    assert storage.read_bytes(uri) == b"1"
    assert locks.keeps_conditions(strict_s3)


def test_rclone_is_found_not_to_keep_conditions(s3: str) -> None:
    assert not locks.keeps_conditions(s3)
    assert storage.list_files(s3) == []


@pytest.mark.parametrize("kind", ["s3", "strict_s3"])
def test_one_run_at_a_time_on_s3(
    kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = request.getfixturevalue(kind)
    with locks.hold_lock(prefix):
        with (
            pytest.raises(NotReadyError, match=f"process {os.getpid()} on"),
            locks.hold_lock(prefix),
        ):
            pass
    assert storage.list_files(prefix) == []
    assert ("advisory" in caplog.text) is (kind == "s3")


@pytest.mark.parametrize("kind", ["s3", "strict_s3"])
def test_the_lock_of_a_dead_run_is_taken_over(kind: str, request: pytest.FixtureRequest) -> None:
    import json
    import socket

    prefix = request.getfixturevalue(kind)
    uri = storage.join(prefix, locks.LOCK_NAME)
    here = {
        "process": 2**22 - 1,
        "host": socket.gethostname(),
        "token": "t",
        "renewed": time.time(),
    }
    for owner in (here, {**here, "host": "elsewhere", "renewed": time.time() - 61}):
        storage.write_text(uri, json.dumps(owner))
        with locks.hold_lock(prefix):
            assert json.loads(storage.read_text(uri))["process"] == os.getpid()
    storage.write_text(uri, json.dumps({**here, "host": "elsewhere"}))
    with pytest.raises(NotReadyError, match="on elsewhere"), locks.hold_lock(prefix):
        pass


def test_a_held_lock_is_renewed(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.4)
    uri = storage.join(s3, locks.LOCK_NAME)
    with locks.hold_lock(s3):
        first = json.loads(storage.read_text(uri))["renewed"]
        time.sleep(0.5)
        assert json.loads(storage.read_text(uri))["renewed"] > first


def test_a_lock_that_another_run_took_is_left_alone_and_stops_this_run(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.4)
    stopped: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: stopped.append(number))
    uri = storage.join(s3, locks.LOCK_NAME)
    with locks.hold_lock(s3):
        owner = {"process": 1, "host": "elsewhere", "token": "t", "renewed": time.time()}
        storage.write_text(uri, json.dumps(owner))
        time.sleep(0.5)
    assert stopped == [signal.SIGTERM]
    assert json.loads(storage.read_text(uri))["token"] == "t"


def test_a_put_that_was_sent_twice_is_not_another_run(
    strict_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = storage.write_if_absent

    def put_twice(uri: str, data: bytes) -> bool:
        put(uri, data)
        return put(uri, data)

    monkeypatch.setattr(locks, "keeps_conditions", lambda _output: True)
    monkeypatch.setattr(storage, "write_if_absent", put_twice)
    with locks.hold_lock(strict_s3):
        pass
    assert storage.list_files(strict_s3) == []
