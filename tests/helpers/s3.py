"""Real S3 servers on loopback: rclone for throughput and reality, moto for conditional writes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyfsb import storage
from pyfsb.storage import s3 as s3_module

KEY, SECRET = "test-key", "test-secret"
BUCKET = "fsb"


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    endpoint: str

    def enter(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
        """Point the environment and storage at it; returns a fresh prefix."""
        for name, value in self.environment(folder).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(storage, "_S3", s3_module.S3Backend())
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables for a process that uses it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "FSB_S3_ADDRESSING": "path",
            "FSB_CACHE": str(folder / "cache"),
        }


@contextlib.contextmanager
def start_rclone(folder: Path) -> Iterator[S3Server]:
    """Start `rclone serve s3` on a folder."""
    (folder / BUCKET).mkdir(parents=True)
    port = _free_port()
    program = Path(sys.executable).with_name("rclone")
    command = [
        str(program), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "off", "--config", os.devnull,
    ]  # fmt: skip
    with _running(command, f"http://127.0.0.1:{port}") as server:
        yield server


@contextlib.contextmanager
def start_moto() -> Iterator[S3Server]:
    """Start moto's server and make the bucket."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, f"http://127.0.0.1:{port}") as server:
        import boto3

        client = boto3.client(
            "s3", endpoint_url=server.endpoint, aws_access_key_id=KEY,
            aws_secret_access_key=SECRET, region_name="us-east-1",
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        yield server


@contextlib.contextmanager
def _running(command: list[str], endpoint: str) -> Iterator[S3Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not _answers(endpoint):
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} did not answer"
            time.sleep(0.1)
        yield S3Server(endpoint)
    finally:
        process.terminate()
        process.wait(10)


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=1)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
