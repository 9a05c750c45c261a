"""Fixtures that every test may use: data folders, ports, an S3 server, golden files."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.s3 import S3Server, start_moto, start_rclone

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples everywhere: a change of ours makes a test fail, not the day.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "docs/examples/data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.integration)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(580))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped although `FSB_REQUIRED_MARKS` says that it must run here."""
    report = yield
    required = os.environ.get("FSB_REQUIRED_MARKS", "").split()
    if report.skipped and not hasattr(report, "wasxfail"):
        for name in required:
            if item.get_closest_marker(name):
                report.outcome = "failed"
                report.longrepr = f"{item.nodeid} has mark {name} and was skipped: {call.excinfo}"
    return report


@pytest.fixture(scope="session")
def samples() -> Path:
    """Our own sample data, in the layout of the real files."""
    return SAMPLES


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The benchmark files, found through FSB_DATA."""
    folder = os.environ.get("FSB_DATA")
    if not folder:
        pytest.skip("FSB_DATA is not set: no benchmark files")
    return Path(folder)


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def _rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with start_rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def _moto() -> Iterator[S3Server]:
    with start_moto() as server:
        yield server


@pytest.fixture
def s3(_rclone: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty prefix on a real S3 server (rclone), with the environment set for it."""
    return _rclone.enter(monkeypatch, tmp_path)


@pytest.fixture
def strict_s3(_moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty prefix on a server that honours conditional writes (moto)."""
    return _moto.enter(monkeypatch, tmp_path)
