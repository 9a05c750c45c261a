# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.leaderboard.evaluating --spec URI`: the evaluation, then the run's pages.

What every pod of an Evaluation runs: the pages are seconds of work on what the evaluation has just
written, so the first pod makes them and no pod of their own is started.
"""

from __future__ import annotations

import argparse
import os
import sys

from pyfsb.config import Stage, load_spec
from pyfsb.errors import EXIT_OK
from pyfsb.evaluation.__main__ import run_evaluation
from pyfsb.leaderboard.build import build_leaderboard
from pyfsb.processes import run_stage_main


def main() -> int:
    """Run both stages of a resolved spec."""
    parser = argparse.ArgumentParser(
        prog="python -m pyfsb.leaderboard.evaluating", description=__doc__
    )
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    uri = parser.parse_args().spec
    code = run_evaluation(uri)
    # PyTorchJob numbers its pods with RANK.
    if code == EXIT_OK and os.environ.get("RANK", "0") == "0":
        spec = load_spec(uri)
        build_leaderboard([spec.output_of(Stage.EVALUATION)], spec.output_of(Stage.LEADERBOARD))
    return code


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
