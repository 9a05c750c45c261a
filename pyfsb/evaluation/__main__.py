# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.evaluation --spec URI`: the evaluation stage; starts torchrun, never ssh."""

from __future__ import annotations

import argparse
import sys

from pyfsb.config import Stage, load_spec
from pyfsb.engines.outcome import report_outcome
from pyfsb.errors import EXIT_OK
from pyfsb.processes import run_stage_main
from pyfsb.training.launcher import launch


def main() -> int:
    """Start the ranks of a resolved spec and return what their ends mean."""
    parser = argparse.ArgumentParser(prog="python -m pyfsb.evaluation", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    arguments = parser.parse_args()
    spec = load_spec(arguments.spec)
    code = launch("pyfsb.evaluation.run", ["--spec", arguments.spec], spec.parallelism)
    if code == EXIT_OK:
        report_outcome(spec.output_of(Stage.EVALUATION))
    return code


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
