"""One rank of a group in trouble, for the tests of watchdog and launcher: `RANK_DOES` says what."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from pyfsb.errors import DataError
from pyfsb.training.launcher import run_rank
from pyfsb.training.watchdog import Watchdog


def main() -> int:
    import torch
    from torch import distributed

    rank, does = int(os.environ["RANK"]), json.loads(os.environ["RANK_DOES"])
    distributed.init_process_group("gloo", timeout=timedelta(minutes=30))
    timeout = float(os.environ["HANG_SECONDS"])
    with Watchdog(timeout, Path(os.environ["RANK_FOLDER"])) as watchdog:
        for step in range(1, 4):
            distributed.all_reduce(torch.ones(2))
            watchdog.beat(step)
        Path(os.environ["RANK_FOLDER"], f"pid-{rank}").write_text(str(os.getpid()))
        trouble(does[rank], watchdog)
    return 0


def trouble(word: str, watchdog: Watchdog) -> None:
    """Do what the test asks for."""
    import torch
    from torch import distributed

    if word == "sleep":
        time.sleep(600)
    if word == "hold":  # a call into C that keeps the interpreter's lock
        ctypes.PyDLL(None).sleep(600)
    if word == "reduce":  # waits for the others
        distributed.all_reduce(torch.ones(2))
    if word == "fail":
        time.sleep(1)
        raise DataError("row 7 is wrong")
    if word == "spin":  # hears nothing of the group, beats on
        for step in range(4, 10_000):
            watchdog.beat(step)
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(run_rank(main))
