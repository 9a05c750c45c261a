"""Groups of ranks that are forked from a process that has torch and DeepSpeed loaded already.

Starting a rank costs a fork instead of ten seconds of imports, so tests and benchmarks can afford
many groups. The calling process must not have started threads of torch or joined a group.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyfsb.training.distributed import ProcessGroup


def load() -> None:
    """Import what ranks need, once; no thread is started by it."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    import deepspeed  # noqa: F401

    import pyfsb.training.restoring  # noqa: F401


def fork_rank(
    rank: int,
    size: int,
    rendezvous: Path,
    work: Callable[[ProcessGroup], None],
    enter: Callable[[], None] | None = None,
) -> int:
    """Fork one rank; it ends with 0 when its work returns, with 1 when that raises.

    Args:
        rank: Its number.
        size: Number of ranks.
        rendezvous: A file that is not there yet, equal for all ranks.
        work: What it does.
        enter: What it does before it joins the group.

    Returns:
        Its process id.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if enter:
            enter()
        work(_join(rank, size, rendezvous))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def run_ranks(size: int, work: Callable[[ProcessGroup], Any]) -> list[Any]:
    """Run a function in a group of forked ranks; returns what each returned."""
    with tempfile.TemporaryDirectory() as folder:

        def keep(group: ProcessGroup) -> None:
            Path(folder, str(group.rank)).write_bytes(pickle.dumps(work(group)))

        pids = [fork_rank(rank, size, Path(folder, "store"), keep) for rank in range(size)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert not any(codes), f"ranks ended with {codes}"
        return [pickle.loads(Path(folder, str(rank)).read_bytes()) for rank in range(size)]


def _join(rank: int, size: int, rendezvous: Path) -> ProcessGroup:
    import deepspeed
    import torch

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"LOCAL_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size
    )
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    return ProcessGroup(rank=rank, size=size, device=torch.device("cpu"))
