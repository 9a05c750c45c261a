# SPDX-License-Identifier: Apache-2.0
"""`python -m pipelines compile`: write the compiled pipelines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipelines.compile import FOLDER, compile_all
from pyfsb.processes import run_stage_main


def main() -> int:
    """Compile into the folder given."""
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    parser.add_argument("verb", choices=("compile",), help="what to do")
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder (default: %(default)s)")
    arguments = parser.parse_args()
    for path in compile_all(arguments.to):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
