"""Mirrors: what is brought, what is kept, and processes that share one."""

from __future__ import annotations

import os
import subprocess
import sys

from pyfsb import storage
from pyfsb.storage.workspace import Workspace
from tests.conftest import ROOT

PULL = (
    "import sys\n"
    "from pyfsb.storage.workspace import Workspace\n"
    "for number in range(12):\n"
    "    folder = Workspace(sys.argv[1]).pull_exactly(f'state-{number}')\n"
    "    sizes = [path.stat().st_size for path in sorted(folder.glob('*.bin'))]\n"
    "    assert sizes == [300_000] * 3, sizes\n"
)


def test_processes_that_bring_the_same_state_do_not_disturb_each_other(s3: str) -> None:
    """The ranks of a pod start together and share a mirror."""
    for folder in range(12):
        for number in range(3):
            storage.write_bytes(f"{s3}/state-{folder}/{number}.bin", bytes(300_000))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PULL, s3],
            cwd=ROOT,
            env=dict(os.environ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=50)
        assert rank.returncode == 0, errors


def test_only_what_changed_is_brought_again(s3: str) -> None:
    storage.write_text(f"{s3}/state/a", "one")
    storage.write_text(f"{s3}/state/b", "two")
    folder = Workspace(s3).pull_exactly("state")
    before = (folder / "a").stat().st_mtime_ns
    storage.write_text(f"{s3}/state/b", "three")
    storage.delete(f"{s3}/state/a")
    storage.write_text(f"{s3}/state/a", "one")
    (folder / "only-here").write_text("left by an earlier run")
    Workspace(s3).pull_exactly("state")
    assert (folder / "b").read_text() == "three"
    assert not (folder / "only-here").exists()
    storage.write_text(f"{s3}/other", "x")
    Workspace(s3).pull()
    assert (folder.parent / "other").read_text() == "x"
    assert before <= (folder / "a").stat().st_mtime_ns
