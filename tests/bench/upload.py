"""B13: a state to S3 and back, beside boto3's `upload_file` and `download_file`.

512 MiB on `rclone serve s3` over loopback, same client settings, interleaved; seconds and this
process's CPU seconds. Two limits are printed: a bare socket over loopback into a file (no HTTP, no
store), and, because the store hashes and writes what it gets, one plain PUT or GET to the same
store by a client that does nothing else.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.s3 import BUCKET, start_rclone

NUM_BYTES = 512 << 20
NUM_ROUNDS = 5
_RECEIVER = """
import os, socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
    buffer = bytearray(1 << 20)
    with open(sys.argv[1], "wb") as file:
        while size := connection.recv_into(buffer):
            file.write(memoryview(buffer)[:size])
    connection.sendall(b"x")
"""
Times = tuple[float, float]


def measure(action: Callable[[], None]) -> Times:
    """Return seconds and CPU seconds of this process."""
    started, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - started, time.process_time() - cpu


def socket_copy(source: Path, target: Path) -> None:
    """Send a file over loopback to a process that writes it."""
    receiver = subprocess.Popen(
        [sys.executable, "-c", _RECEIVER, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout is not None
    port = int(receiver.stdout.readline())
    with socket.create_connection(("127.0.0.1", port)) as connection, source.open("rb") as file:
        connection.sendfile(file)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    receiver.wait()


def plain_request(client: Any, method: str, key: str, source: Path | None, target: Path) -> None:
    """One PUT of a file, or one GET into a file, with the standard library."""
    operation = "put_object" if method == "PUT" else "get_object"
    url = urllib.parse.urlsplit(
        client.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": key})
    )
    assert url.hostname
    connection = http.client.HTTPConnection(url.hostname, url.port, blocksize=1 << 20)
    if source:
        with source.open("rb") as file:
            headers = {"Content-Length": str(NUM_BYTES)}
            connection.request(method, f"{url.path}?{url.query}", file, headers)
            answer = connection.getresponse()
            answer.read()
    else:
        connection.request(method, f"{url.path}?{url.query}")
        answer = connection.getresponse()
        buffer = memoryview(bytearray(1 << 20))
        with target.open("wb") as file:
            while size := answer.readinto(buffer):
                file.write(buffer[:size])
            os.fsync(file.fileno())
    assert answer.status == 200, answer.status
    connection.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "state.safetensors"
        block = os.urandom(8 << 20)
        source.write_bytes(block * (NUM_BYTES // len(block)))
        with start_rclone(folder / "store") as server:
            os.environ.update(server.environment(folder))
            _compare(folder, source)


def _compare(folder: Path, source: Path) -> None:
    from pyfsb.storage.s3 import S3Backend

    backend = S3Backend()
    client, uri = backend.client, f"s3://{BUCKET}/ours"
    back, theirs = folder / "back", folder / "theirs"

    def boto3_download() -> None:
        client.download_file(BUCKET, "theirs", str(theirs))
        with theirs.open("rb") as file:
            os.fsync(file.fileno())  # as ours does: what is restored stays

    def socket_limit() -> None:
        socket_copy(source, folder / "copied")

    sides: dict[str, dict[str, Callable[[], None]]] = {
        "upload": {
            "ours": lambda: backend.upload(source, uri),
            "boto3": lambda: client.upload_file(str(source), BUCKET, "theirs"),
            "plain PUT": lambda: plain_request(client, "PUT", "plain", source, back),
            "bare socket": socket_limit,
        },
        "restore": {
            "ours": lambda: backend.download(uri, back),
            "boto3": boto3_download,
            "plain GET": lambda: plain_request(client, "GET", "plain", None, folder / "plain"),
            "bare socket": socket_limit,
        },
    }
    found: dict[str, dict[str, list[Times]]] = {
        direction: {name: [] for name in actions} for direction, actions in sides.items()
    }
    for _ in range(NUM_ROUNDS):
        for direction, actions in sides.items():
            for name, action in actions.items():
                found[direction][name].append(measure(action))
    assert _digest(back) == _digest(theirs) == _digest(source)
    for direction, times in found.items():
        _print(direction, times)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _print(direction: str, times: dict[str, list[Times]]) -> None:
    print(f"{direction} of {NUM_BYTES >> 20} MiB, median of {NUM_ROUNDS} (least to most)")
    for name, values in times.items():
        seconds = sorted(value for value, _ in values)
        cpu = statistics.median(value for _, value in values)
        rate = NUM_BYTES / 1e6 / statistics.median(seconds)
        print(
            f"  {name:<12} {rate:7.0f} MB/s  {statistics.median(seconds):6.2f} s "
            f"({seconds[0]:.2f} to {seconds[-1]:.2f})  CPU {cpu:5.2f} s"
        )
    for other in [name for name in times if name != "ours"]:
        pairs = list(zip(times["ours"], times[other], strict=True))
        speed = statistics.median(b[0] / a[0] for a, b in pairs)
        work = statistics.median(a[1] / b[1] for a, b in pairs)
        print(f"  ours / {other:<12} speed {speed:5.2f}   CPU {work:5.2f}")


if __name__ == "__main__":
    main()
