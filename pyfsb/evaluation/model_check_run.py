# SPDX-License-Identifier: Apache-2.0
"""The process of `fsb models check`: `python -m pyfsb.evaluation.model_check_run --results FILE`.

Checks entries one after the other and writes a line of JSON for each. A process of its own, since
checks join a process group and train; the command line imports none of that.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from pathlib import Path

from pyfsb.errors import EXIT_DATA, EXIT_OK
from pyfsb.evaluation.model_check import check_full_size, check_tiny, single_process
from pyfsb.processes import run_stage_main
from pyfsb.registry import find_entry
from pyfsb.schema import canonical_json

_log = logging.getLogger(__name__)


def main() -> int:
    """Check the entries that the arguments name.

    Returns:
        0 when all of them work, 3 when one does not; its line says why.
    """
    parser = argparse.ArgumentParser(prog="pyfsb.evaluation.model_check_run", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="+", help="names of entries")
    parser.add_argument("--results", type=Path, required=True, help="file of JSON lines to write")
    parser.add_argument("--full-size", action="store_true", help="count, in place of training")
    arguments = parser.parse_args()
    entries = [find_entry(name) for name in arguments.names]
    check = check_full_size if arguments.full_size else check_tiny
    num_failed = 0
    with (
        contextlib.nullcontext() if arguments.full_size else single_process(),
        arguments.results.open("w", encoding="utf-8") as file,
    ):
        for number, entry in enumerate(entries, start=1):
            result = check(entry)
            num_failed += not result.is_ok
            file.write(canonical_json(result.to_json()) + "\n")
            file.flush()
            verdict = "works" if result.is_ok else f"does not work: {result.note}"
            _log.info("%d/%d %s %s", number, len(entries), entry.name, verdict)
    return EXIT_DATA if num_failed else EXIT_OK


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
