# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.leaderboard --spec URI`: the leaderboard of one run, as its fourth stage."""

from __future__ import annotations

import argparse
import sys

from pyfsb.config import Stage, load_spec
from pyfsb.leaderboard.build import build_leaderboard
from pyfsb.processes import run_stage_main


def main() -> int:
    """Build the board of a resolved spec's run."""
    parser = argparse.ArgumentParser(prog="python -m pyfsb.leaderboard", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    spec = load_spec(parser.parse_args().spec)
    build_leaderboard([spec.output_of(Stage.EVALUATION)], spec.output_of(Stage.LEADERBOARD))
    return 0


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
