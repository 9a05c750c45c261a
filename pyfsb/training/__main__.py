# SPDX-License-Identifier: Apache-2.0
"""`python -m pyfsb.training --spec URI`: the training stage; starts torchrun, never ssh."""

from __future__ import annotations

import argparse
import sys

from pyfsb.config import Stage, load_spec, pin_checkpoint
from pyfsb.engines.completion import find_complete, read_spec
from pyfsb.engines.outcome import report_outcome
from pyfsb.errors import EXIT_OK
from pyfsb.processes import run_stage_main
from pyfsb.training.launcher import launch


def main() -> int:
    """Start the ranks of a resolved spec and return what their ends mean."""
    parser = argparse.ArgumentParser(prog="python -m pyfsb.training", description=__doc__)
    parser.add_argument("--spec", required=True, help="resolved run spec, a path or s3:// URI")
    arguments = parser.parse_args()
    spec = pin_checkpoint(load_spec(arguments.spec))
    code = EXIT_OK
    if not find_complete(spec, Stage.TRAINING, read_spec(spec.output)):
        code = launch("pyfsb.training.run", ["--spec", arguments.spec], spec.parallelism)
    if code == EXIT_OK:
        report_outcome(spec.output_of(Stage.TRAINING))
    return code


if __name__ == "__main__":
    sys.exit(run_stage_main(main))
