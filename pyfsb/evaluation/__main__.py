# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.evaluation --spec URI`: the evaluation stage; starts torchrun, never ssh."""

from __future__ import annotations

import argparse
import sys

from pyfsb.config import Stage, load_spec, pin_checkpoint
from pyfsb.engines.completion import find_complete, read_spec
from pyfsb.engines.outcome import report_outcome, report_to_leaderboard
from pyfsb.errors import EXIT_OK
from pyfsb.processes import run_stage_main
from pyfsb.training.launcher import launch


def run_evaluation(uri: str) -> int:
    """Start the ranks of a resolved spec and return what their ends mean.

    A good end is told to the operator and to the platform's leaderboard.

    Args:
        uri: The spec, a path or s3:// URI.
    """
    spec = pin_checkpoint(load_spec(uri))
    code = EXIT_OK
    if not find_complete(spec, Stage.EVALUATION, read_spec(spec.output)):
        code = launch("pyfsb.evaluation.run", ["--spec", uri], spec.parallelism)
    if code == EXIT_OK:
        report_to_leaderboard(spec.output_of(Stage.EVALUATION))
        report_outcome(spec.output_of(Stage.EVALUATION))
    return code


def main() -> int:
    """Run the evaluation of a resolved spec."""
    parser = argparse.ArgumentParser(prog="python -m pyfsb.evaluation", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    return run_evaluation(parser.parse_args().spec)


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
