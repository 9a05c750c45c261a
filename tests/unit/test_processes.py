from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyfsb.errors import ConfigError, DataError
from pyfsb.processes import StopRequest, is_running, run_child, run_stage_main


def _wait_for(condition: object, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_a_child_returns_its_code() -> None:
    assert run_child([sys.executable, "-c", "raise SystemExit(7)"]).code == 7


def test_a_killed_child_returns_128_plus_the_signal() -> None:
    end = run_child([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert (end.code, end.signal_number) == (137, None)


def test_a_stop_signal_is_passed_on_once(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    child = (
        "import pathlib, signal, sys, time\n"
        f"def stop(*_): pathlib.Path({str(seen)!r}).write_text('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\nprint('up', flush=True)\ntime.sleep(60)"
    )
    parent = (
        "import sys\nfrom pyfsb.processes import run_child\n"
        f"end = run_child([sys.executable, '-c', {child!r}])\n"
        "sys.exit(100 + (end.code == 143) + (end.signal_number == 2))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().strip() == b"up"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 102
    assert seen.read_text() == "saved"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_a_child_dies_with_its_parent() -> None:
    parent = (
        "import sys\nfrom pyfsb.processes import start_child\n"
        "child = start_child([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\nimport time; time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert is_running(child)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert _wait_for(lambda: not is_running(child) or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_stop_requests_are_remembered_and_handlers_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert _wait_for(lambda: stop.signal_number == signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a b"), 2), (DataError("c d"), 3)])
def test_an_edge_prints_one_line_and_returns_the_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FSB_TERMINATION_LOG", str(tmp_path / "message"))

    def main() -> int:
        raise error

    assert run_stage_main(main) == code
    assert capsys.readouterr().err == f"error: {type(error).__name__}: {error}\n"
    assert (tmp_path / "message").read_text() == f"{type(error).__name__}: {error}"


def test_a_bug_is_not_hidden() -> None:
    def main() -> int:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        run_stage_main(main)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_told_in_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise OSError(number, os.strerror(number), "/a/b")

    assert run_stage_main(fail) == 75
    assert f"error: StorageError: {os.strerror(number)} at /a/b;" in capsys.readouterr().err


def test_a_process_whose_parent_has_gone_ends() -> None:
    code = "from pyfsb.processes import die_with_parent; die_with_parent(1 << 21); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
