# SPDX-License-Identifier: Apache-2.0
"""Start the ranks with torchrun and say truthfully how they ended.

torchrun returns 1 whatever its children return, so each rank leaves its exit code and error in a
file; the launcher tells each error once and maps the codes: a wrong spec or data stays below 128
(permanent for a PyTorchJob), a lost peer is 129 (retryable), a stop with saved state 143. Called by
the training and evaluation stages.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pyfsb.config import ParallelismSpec
from pyfsb.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_LOST_PEER,
    EXIT_OK,
    EXIT_RETRY,
    EXIT_TERMINATED,
    FsbError,
)
from pyfsb.processes import (
    die_with_parent,
    report_error,
    report_text,
    run_child,
    run_stage_main,
)
from pyfsb.training.config import (
    GRACE_SECONDS,
    LAUNCHER_PID,
    build_rank_environment,
    build_torchrun_command,
)

EXIT_FOLDER: Final = "FSB_EXIT_FOLDER"
"""Environment variable: where ranks leave their exit codes and errors."""
_FIRST_SIGNAL: Final = 128
_PEER_TROUBLE: Final = re.compile(r"\b(gloo|nccl)", re.IGNORECASE)
_log = logging.getLogger(__name__)


def launch(module: str, arguments: Sequence[str], parallelism: ParallelismSpec) -> int:
    """Run a module on all ranks of this machine.

    Args:
        module: Its `__main__` ends with `run_rank`.
        arguments: Passed to every rank.
        parallelism: Number of ranks and threads.

    Returns:
        The exit code that the ranks' ends mean, see the module.
    """
    command = build_torchrun_command(module, arguments, parallelism, os.environ)
    with tempfile.TemporaryDirectory(prefix="fsb-ranks-") as folder:
        environment = {**build_rank_environment(parallelism), EXIT_FOLDER: folder}
        if "PET_NNODES" not in os.environ:
            environment["MASTER_ADDR"] = "127.0.0.1"
        end = run_child(command, environment=environment, grace_seconds=GRACE_SECONDS + 5)
        ends = _read_ends(Path(folder))
    for error in dict.fromkeys(item["error"] for item in ends if item["error"]):
        report_text(error)
    codes = [item["code"] for item in ends]
    asked = os.environ.get("PET_NPROC_PER_NODE") or str(parallelism.num_processes)
    # torchrun also takes words such as `gpu`; how many ranks those were is not known here.
    num_ranks = int(asked) if asked.isdigit() else 1
    is_stopped = end.signal_number is not None
    meaning = interpret(end.code, codes, num_ranks=num_ranks, is_stopped=is_stopped)
    if meaning == EXIT_LOST_PEER:
        _log.error("a rank of %s was lost (out of memory, killed?); run again to continue", module)
    return meaning


def _read_ends(folder: Path) -> list[dict[str, Any]]:
    """Return what each rank left; one that was killed while it wrote has left nothing."""
    ends = []
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(ValueError):
            ends.append(json.loads(path.read_text()))
    return ends


def interpret(
    code: int, rank_codes: Sequence[int], *, num_ranks: int, is_stopped: bool = False
) -> int:
    """Return what torchrun's code and the ranks' own codes mean together.

    Args:
        code: torchrun's exit code.
        rank_codes: Codes of the ranks that ended by themselves.
        num_ranks: Ranks that were started.
        is_stopped: Somebody asked for the end.
    """
    if code == EXIT_OK:
        return EXIT_OK
    for known in (EXIT_CONFIG, EXIT_DATA, EXIT_RETRY):
        if known in rank_codes:
            return known
    # torchrun ends the others when one rank fails: then that one is the cause, whatever they say.
    if EXIT_FAILURE in rank_codes and not is_stopped and code < _FIRST_SIGNAL:
        return EXIT_FAILURE
    is_lost = len(rank_codes) < num_ranks or EXIT_LOST_PEER in rank_codes
    # When nobody asked for the end, it was torchrun that stopped the ranks that are left.
    if is_lost and not is_stopped:
        return EXIT_LOST_PEER
    for known in (EXIT_TERMINATED, EXIT_INTERRUPTED):
        if known in rank_codes:
            return known
    return EXIT_LOST_PEER if is_lost else EXIT_FAILURE


def is_lost_peer(error: BaseException) -> bool:
    """Say whether an error means that another rank, maybe of another machine, went away.

    Source: torch 2.13: NCCL's and the store's errors have classes of their own in
    `torch.distributed`; gloo's are plain RuntimeErrors that name the file in gloo.
    """
    name = type(error).__name__
    if name in ("DistBackendError", "DistNetworkError", "DistStoreError"):
        return True
    return isinstance(error, RuntimeError) and bool(_PEER_TROUBLE.search(str(error)))


def run_rank(main: Callable[[], int]) -> int:
    """Run a rank's `main` as a process edge; its code and error go to the launcher."""
    launcher = os.environ.get(LAUNCHER_PID)
    die_with_parent(int(launcher) if launcher else None)  # imports took seconds: it may be gone
    if os.environ.get("RANK", "0") != "0":
        os.environ.setdefault("FSB_LOG_LEVEL", "WARNING")
    folder = os.environ.get(EXIT_FOLDER)
    errors: list[str] = []

    def leave(error: FsbError) -> None:
        errors.append(f"{type(error).__name__}: {error}")

    code = EXIT_FAILURE
    try:
        code = run_stage_main(main, report=leave if folder else report_error)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else EXIT_FAILURE
    except RuntimeError as exc:
        if not is_lost_peer(exc):
            raise
        _log.error("another rank was lost: %s", exc)
        code = EXIT_LOST_PEER
    finally:
        leave_end(code, errors[0] if errors else None)
    return code


def leave_end(code: int, error: str | None) -> None:
    """Leave how this rank ended for the launcher, if one started it.

    Args:
        code: Exit code.
        error: Kind and text of its error.
    """
    folder = os.environ.get(EXIT_FOLDER)
    if folder:
        end = {"code": code, "error": error}
        Path(folder, os.environ.get("RANK", "0")).write_text(json.dumps(end))
