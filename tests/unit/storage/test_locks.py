from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyfsb.errors import NotReadyError
from pyfsb.storage.locks import hold_lock

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
