# SPDX-License-Identifier: Apache-2.0
"""torchrun itself, without its traceback: `python -m pyfsb.training.torchrun` takes its arguments.

The ranks tell their errors in one line each and `launcher` says what their ends mean; torchrun's
report of the same failure would bury both. Called by `launcher` only.
"""

from __future__ import annotations

import logging
import os
import sys

from pyfsb.errors import EXIT_FAILURE
from pyfsb.training.config import LAUNCHER_PID


def main() -> int:
    """Run torchrun with this process's arguments; returns 1 when a rank failed or was stopped."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    os.environ[LAUNCHER_PID] = str(os.getpid())
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        run(sys.argv[1:])
    except (ChildFailedError, SignalException):
        return EXIT_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
