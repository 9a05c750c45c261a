from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyfsb.errors import NotReadyError
from pyfsb.storage.locks import HOLDER_VARIABLE, hold_lock

_HOLD = (
    "import sys, time\nfrom pyfsb.storage.locks import hold_lock\n"
    "with hold_lock(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
)


def _holder(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_run_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    try:
        with pytest.raises(NotReadyError, match=rf"another run holds .*process {holder.pid} on"):
            with hold_lock(str(tmp_path)):
                pass
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    holder.kill()
    holder.wait()
    with hold_lock(str(tmp_path)):
        assert str(os.getpid()) in (tmp_path / ".owner").read_text()
    assert not (tmp_path / ".owner").exists()


def test_a_task_works_under_its_runs_lock_and_dies_with_it(tmp_path: Path) -> None:
    holder = _holder(tmp_path)
    task = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE,
        env={**os.environ, HOLDER_VARIABLE: str(holder.pid)},
    )  # fmt: skip
    try:
        assert task.stdout is not None
        assert task.stdout.readline() == b"held\n"
        assert (tmp_path / ".owner").exists()
    finally:
        holder.kill()
        holder.wait()
    assert task.wait(10) == -signal.SIGKILL
    with hold_lock(str(tmp_path)):
        pass


@pytest.mark.parametrize("holder_pid", ["1", "999999999"])
def test_a_process_that_does_not_hold_the_lock_lends_none(
    holder_pid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = _holder(tmp_path)
    monkeypatch.setenv(HOLDER_VARIABLE, holder_pid)
    try:
        with pytest.raises(NotReadyError, match="another run holds"), hold_lock(str(tmp_path)):
            pass
    finally:
        holder.kill()
        holder.wait()
    with hold_lock(str(tmp_path)):
        assert (tmp_path / ".owner").exists()
